"""Libraries with which people write agents, against the server's real HTTP layer: three tool calls, then an answer."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from scripted import CITIES, WEATHER, ScriptedEngine, served, three_calls

pytest.importorskip("starlette", reason="the extra [serve] is not installed")
pytest.importorskip("uvicorn", reason="the extra [serve] is not installed")

pytestmark = pytest.mark.filterwarnings("ignore")  # these libraries' own
FOUND = "Found: sun in Paris, sun in Oslo, sun in Lima."


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(ScriptedEngine(three_calls), key="k") as place:
        yield f"http://{place}/v1"


def weather(city: str) -> str:
    return f"sun in {city}"


@pytest.mark.parametrize("stream", [False, True])
def test_openai_s_client_finishes_a_conversation(stream: bool, url: str) -> None:
    openai = pytest.importorskip("openai", reason="the openai client is not installed")
    turns: list[Any] = [{"role": "user", "content": "How is the weather?"}]
    with openai.OpenAI(base_url=url, api_key="k", max_retries=0) as client:
        create = client.chat.completions.create
        for city in CITIES:
            asked: dict[str, Any] = {"model": "scripted", "messages": turns, "tools": [WEATHER]}
            if stream:
                call = _joined(create(**asked, stream=True, extra_body={"asa_factor": 0.5}))
            else:
                answer = create(**asked, extra_body={"asa_factor": 0.5})
                assert answer.asa["decision"]["gate"] == 1
                assert answer.choices[0].finish_reason == "tool_calls"
                call = answer.choices[0].message.tool_calls[0].model_dump()
            arguments = json.loads(call["function"]["arguments"])
            assert arguments == {"city": city}
            turns.append({"role": "assistant", "tool_calls": [call]})
            turns.append({"role": "tool", "tool_call_id": call["id"], "content": weather(**arguments)})
        assert create(model="scripted", messages=turns, tools=[WEATHER]).choices[0].message.content == FOUND
        raw = client.chat.completions.with_raw_response.create(model="scripted", messages=turns)
        assert json.loads(raw.headers["x-asa-decision"])["domain"] == "math"
        with pytest.raises(openai.BadRequestError, match=r"n is 2, which this server does not do; leave it out"):
            create(model="scripted", messages=turns, n=2)
        with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o' here"):
            create(model="gpt-4o", messages=turns)
        with pytest.raises(openai.AuthenticationError, match="the API key is missing or wrong"):
            client.with_options(api_key="wrong").models.list()
        assert [model.id for model in client.models.list()] == ["scripted"]


def _joined(chunks: Any) -> dict[str, Any]:
    """The one call of a stream."""
    parts = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    function = {"name": parts[0].function.name, "arguments": "".join(part.function.arguments for part in parts)}
    return {"id": parts[0].id, "type": "function", "function": function}


@pytest.mark.parametrize("stream", [False, True])
def test_smolagents_finishes_a_conversation(stream: bool, url: str) -> None:
    smolagents = pytest.importorskip("smolagents", reason="smolagents is not installed")
    pytest.importorskip("openai", reason="the openai client is not installed")

    @smolagents.tool
    def get_weather(city: str) -> str:
        """Tells the weather.

        Args:
            city: a city.
        """
        return weather(city)

    model = smolagents.OpenAIModel("scripted", api_base=url, api_key="k")
    agent = smolagents.ToolCallingAgent([get_weather], model, stream_outputs=stream, verbosity_level=0)
    steps = list(agent.run("How is the weather?", stream=True))
    called = [step.tool_call for step in steps if type(step).__name__ == "ToolOutput"]
    assert [call.name for call in called] == ["get_weather"] * 3 + ["final_answer"]
    assert [call.arguments for call in called[:3]] == [{"city": city} for city in CITIES]
    assert "sun in Lima" in steps[-1].output


@pytest.mark.parametrize("stream", [False, True])
def test_openai_s_agents_finish_a_conversation(stream: bool, url: str) -> None:
    agents = pytest.importorskip("agents", reason="openai-agents is not installed")
    openai = pytest.importorskip("openai", reason="the openai client is not installed")

    @agents.function_tool
    def get_weather(city: str) -> str:
        """Tells the weather."""
        return weather(city)

    async def conversation() -> tuple[str, list[Any]]:
        agents.set_tracing_disabled(True)
        async with openai.AsyncOpenAI(base_url=url, api_key="k", max_retries=0) as client:
            model = agents.OpenAIChatCompletionsModel("scripted", client)
            agent = agents.Agent("weather", model=model, tools=[get_weather])
            if stream:
                result = agents.Runner.run_streamed(agent, "How is the weather?")
                async for _ in result.stream_events():
                    pass
            else:
                result = await agents.Runner.run(agent, "How is the weather?")
            return result.final_output, [item.type for item in result.new_items]

    text, items = asyncio.run(conversation())
    assert text == FOUND
    assert items.count("tool_call_item") == items.count("tool_call_output_item") == 3
