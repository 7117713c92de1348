"""The sentence frames and fillers from which ``build.py`` makes the instructions.

One frame a line. ``{slot}`` is filled at random; after ``=>`` stand the arguments of the right call, with the
same slots. A search frame without ``=>`` searches for its own text. Frames of both labels are kept alike on purpose
(same openings, same topics, same length), so that the words alone do not give the label away.
"""

MATH_TOOL = """
what is {a} times {b} => {a} * {b}
how much is {a} plus {b} minus {c} => {a} + {b} - {c}
work out {a} divided by {s} => {a} / {s}
i need the exact product of {a} and {b} => {a} * {b}
{a} * {b} = ? => {a} * {b}
what do you get when you add {a}, {b} and {c} => {a} + {b} + {c}
what is the square root of {a} => {a} ** 0.5
what's {p} percent of {a} => {a} * {p} / 100
a shop sells {a} shirts at {d} dollars each, how much money is that => {a} * {d}
we split a bill of {d} between {s} people, what does each one pay => {d} / {s}
take {b} away from {a} => {a} - {b}
the sum of {a} and {b}, exactly => {a} + {b}
raise {p} to the power of {s} => {p} ** {s}
how many seconds are there in {p} days and {s} hours => {p} * 86400 + {s} * 3600
my rent is {a} a month, what do i pay over {p} months => {a} * {p}
{a} students share {b} books, what is the ratio as a decimal => {a} / {b}
compute ({a} + {b}) * {s} => ({a} + {b}) * {s}
give the average of {a}, {b} and {c} => ({a} + {b} + {c}) / 3
what remains when {a} is divided by {p} => {a} % {p}
add a {p} percent tip to {d} => {d} * (1 + {p} / 100)
a field is {d} by {p} meters, tell me its area => {d} * {p}
there are 1.609 km in a mile, so how long is a trip of {a} miles => {a} * 1.609
if a car drives {a} km on {p} liters, how far does one liter take it => {a} / {p}
the difference between {a} and {b} is what => {a} - {b}
someone is {p} years old, how old is that in days => {p} * 365.25
multiply {a} with {b} for me => {a} * {b}
is {a} bigger than {p} times {b} => {a} > {p} * {b}
i have {a} apples and get {b} more, how many apples is that => {a} + {b}
find the volume of a box, {p} by {d} by {s} => {p} * {d} * {s}
cube {p} and then subtract {a} => {p} ** 3 - {a}
"""

MATH_PROSE = """
what is {s} times {t}
how much is {s} plus {t} minus 1
what is half of {e}
{s} + {t} = ?
i have {s} apples and get {t} more, how many apples is that
take 1 away from {t}
what is the square root of {sq}
double {s}
is {s} bigger than {t}
what is {a_concept}
who worked out the first ideas of {field}
what does the {symbol} sign mean
how do you define {a_concept} in simple words
what's the formula for the area of a {shape}
why can't you divide {s} by zero
how many sides does a {shape} have
is {t} an even number
tell me in words how to multiply two {kind_of_number}
which number comes after {s}
a shop sells {s} shirts at 10 dollars each, how much money is that
we split {e} cookies between 2 kids, what does each one get
what is {mathematician} known for
what is the difference between {a_concept} and {a_concept2}
give the definition of {a_concept}
what's 100 percent of {s}
how many minutes are there in {one_or_two}
add {s} and {t} for me
the sum of the angles in a {shape}, does it have a name
when do people use {a_concept} in real life
how old is {field} as a science
"""

CODE_TOOL = """
run this code: {code} => {code}
what is the output of {code} => {code}
execute {code} and show me the result => {code}
tell me exactly what {code} returns => {code}
i want to see the output of {code} => {code}
try {code} in python => {code}
evaluate the snippet {code} => {code}
check that {code} works by running it => {code}
use python to {task} => {task_code}
write and run a script to {task} => {task_code}
what happens when i run {code} => {code}
start a loop in python to {task} => {task_code}
does {code} raise an error? test it => {code}
measure how long {code} takes => {code}
with a script, {task} and give me the result => {task_code}
here is my program, start it: {code} => {code}
what value has x after x = {code} => {code}
give me the result of {code}, don't guess => {code}
i typed {code}, what comes out => {code}
fire up the interpreter and do {code} => {code}
the output of {code} in a line => {code}
{task}, using code => {task_code}
open python and {task} => {task_code}
debug this by running it: {code} => {code}
let the computer {task} => {task_code}
see if {code} is true when it runs => {code}
execute a small program to {task} => {task_code}
is the value of {code} what i think it is? run it => {code}
write a function that can {task}, then call it => {task_code}
which number or text does {code} print => {code}
"""

CODE_PROSE = """
what does the keyword {kw} mean in python
explain what {code} does, there's no need to run it
what is {a_thing} in code
which function do you use in {plang} to sort a list
when should i use {a_thing} in my script
what is the difference between {a_thing} and {a_thing2}
who made {plang}
in {code}, what is the part in brackets called
is {plang} a compiled language
why do people write {a_thing} in a program
what type does {func} return in python
name a function that can {job}
what does the error {err} mean
how do you write a comment in {plang}
describe how {algo} works
i typed {kw} in python, what is it for
tell me in words what {code} means
is {code} good style
how would you explain {a_thing} to a child
what does {abbr} stand for
where does {kw} go in a script
give me a one line summary of {plang}
run me through the idea of {a_thing}
does each {plang} program need a main function
what is the use of {func} in python
which is easier to learn, {plang} or {plang2}
before i execute anything: what is {a_thing}
how does a computer keep {a_thing} in memory
what are the names of the functions in {code}
is it a good idea to use {func} in a loop
"""

SEARCH_TOOL = """
who won the {team} game last night
what's the price of {asset} right now
latest news about {topic}
what is the weather in {city} today
did {company} announce anything this week
what is the dollar worth in {country} at the moment
when is the next {event}
is the {place} in {city} open today
what time does the train to {city} leave tomorrow
who is leading the {sport} league at the moment
how much does a flight to {city} cost this weekend
{company} stock price
are there any traffic jams around {city} this morning
which movies are playing in {city} tonight
has the new {product} come out yet
what did the president of {country} say yesterday
will it rain in {city} on saturday
give me the newest population figure for {city}
which song is number one in {country} this week
tell me what's trending on {site} today
find fresh reviews of the {product}
who is the current leader of {country}
what was the score of {team} yesterday
look up the opening hours of the {place} in {city}
was there an earthquake in {country} recently
what is the most recent version of {software}
is {site} down right now
who got the {award} this year
what are people saying about {company} this month
how high are gas prices in {city} this week
"""

SEARCH_PROSE = """
who wrote {book}
what is the capital of {country}
who painted {painting}
in which year did {histevent}
what is the climate of {country} like in general
what do {animals} eat
which continent is {country} on
what is the city of {city} famous for
why {fact}
who was the first {first}
how many players are on a {sport} team
what is the money of {country} called
when was {person} born
what does a stock price tell you
tell me about the old story of {book}
what is {asset} used for
is there a river in the city of {city}
how does {thing} work
is {city} a city in europe
who was {person}
what's the tallest mountain in {continent}
how many legs do {animals} have
what happens at the end of {book}
what are the rules of {sport}, in short
what kind of products does {company} make
which countries lie next to {country}
how does {weather} form
what is the chemical symbol for {element}
what do people celebrate at {holiday}
give me one well known fact about {person}
"""

TRANSLATION_TOOL = """
translate "{sent}" into {lang}
how do i say "{sent}" in {lang}
put this into {lang}: {sent}
what is "{sent}" in {lang}
i need the {lang} for "{sent}"
"{sent}", but in {lang}
turn the sentence "{sent}" into {lang}
my neighbour only speaks {lang}, tell her: {sent}
give me a {lang} version of: {sent}
write "{sent}" in {lang}
translate to {lang}: {sent}
how would someone from my {lang} class say "{sent}"
say "{sent}" in {lang}
the {lang} translation of "{sent}"
what's the right {lang} for "{sent}"
convert this text to {lang}: {sent}
can i have "{sent}" in {lang}
i want to text my {lang} friend "{sent}", what do i write
the sign must read "{sent}" in {lang}
make this {lang}: {sent}
from english to {lang}: {sent}
express "{sent}" in {lang}
for my trip i must know the {lang} words for "{sent}"
render "{sent}" in {lang}
change the words "{sent}" from english to {lang}
tell me what "{sent}" would be in {lang}
this goes in an email to a {lang} client, so use {lang}: {sent}
how does "{sent}" go in {lang}
which {lang} words mean "{sent}"
is there a {lang} way to say "{sent}"? write it
"""

TRANSLATION_PROSE = """
what language do people speak in {country}
how do you spell {word} in english
is the sentence "{sent}" correct english
which word is the verb in "{sent}"
is {lang} spoken in {country}
is {lang} hard to learn
what alphabet does {lang} use
what is {gram}
what's the plural of {word} in english
where does the english word {word} come from
which is older, {lang} or {lang2}
what tense is used in "{sent}"
does {lang} have {gram} like english
what is another word for {adj}
what's the opposite of {adj}
how many letters are in the {lang} alphabet
what does the english word {word} mean
which family of languages does {lang} belong to
do i need a comma in "{sent}"
use the word {word} in an english sentence
why do so many people study {lang}
what do you call someone who {langjob}
is {word} a noun or a verb
make this sound more polite in english: {sent}
tell me how the grammar of {lang} differs from english
what's the best way to learn {lang} words
rewrite "{sent}" in the past tense
say in one line who speaks {lang}
write "{sent}" in capital letters
shorten this english sentence: {sent}
"""

CODE = """
print(sum(range({n})))
len("{w}" * {s})
sorted([{n}, {s}, {t}])[0]
max([{n}, {t}, {s}]) - {s}
"{w}".upper()[::-1]
[x ** 2 for x in range({t})]
print({s} ** {t})
"{w}".count("a")
list(range({s}, {n}, {t}))
int("{n}") // {s}
{n} % {t} == {s}
str({n}) + "{w}"
abs({s} - {n})
round({n} / {t}, 2)
bool("{w}".find("e"))
set("{w}")
"""

TASKS = """
list the first {n} primes => [p for p in range(2, 999) if all(p % q for q in range(2, p))][:{n}]
reverse the word {w} => print("{w}"[::-1])
count the letters in {w} => print(len("{w}"))
sort the numbers {n}, {t} and {s} => print(sorted([{n}, {t}, {s}]))
add up the squares below {n} => print(sum(x * x for x in range({n})))
roll {s} dice => import random; print([random.randint(1, 6) for _ in range({s})])
print the first {t} powers of {s} => print([{s} ** i for i in range({t})])
shuffle the letters of {w} => import random; print(random.sample("{w}", len("{w}")))
print {w} {s} times => print("{w}" * {s})
find all the divisors of {n} => print([i for i in range(1, {n} + 1) if {n} % i == 0])
"""

FILLERS = {
    "a_concept": "a prime number|a fraction|the mean|the median|a matrix|a right angle|a percentage|an integral"
    "|a derivative|a logarithm|a vector|a square root|a ratio|an equation|a function|pi",
    "field": "algebra|geometry|statistics|calculus|set theory|number theory|trigonometry|probability",
    "symbol": "plus|percent|sigma|pi|equals|integral|infinity|square root",
    "shape": "triangle|square|circle|rectangle|hexagon|pentagon|trapezoid|cube",
    "kind_of_number": "fractions|decimals|matrices|negative numbers|powers|big numbers",
    "mathematician": "euler|gauss|pythagoras|euclid|isaac newton|emmy noether|archimedes|fermat|alan turing",
    "one_or_two": "an hour|two hours|half an hour|a quarter of an hour",
    "kw": "for|while|lambda|yield|import|return|class|global|try|with|def|else|pass",
    "a_thing": "a loop|a variable|a list|a dictionary|a class|a recursive function|a string|a module|an exception"
    "|a pointer|a tuple|an integer|a decorator|a unit test|a comment|an array",
    "plang": "python|java|rust|javascript|ruby|go|swift|perl|kotlin|haskell",
    "func": "len|range|print|sorted|sum|zip|map|open|round|input|max|enumerate",
    "job": "turn text to upper case|count the items in a list|round a number|read a line of input|join two strings"
    "|add up a list|open a file|find the largest value",
    "err": "keyerror|indexerror|typeerror|syntaxerror|valueerror|nameerror|zerodivisionerror|importerror",
    "algo": "binary search|bubble sort|quick sort|a hash table|a linked list|a stack|a queue|merge sort",
    "abbr": "html|api|css|sql|json|url|cpu|ide|gui|xml",
    "team": "lakers|yankees|arsenal|real madrid|chicago bulls|liverpool|juventus|red sox|bayern|celtics",
    "asset": "gold|silver|copper|oil|coffee|wheat|bitcoin|natural gas|lithium|cotton",
    "topic": "the election|climate change|the mars mission|the housing market|electric cars|the strike"
    "|the space station|artificial intelligence|the world cup|the flu",
    "city": "paris|london|tokyo|berlin|madrid|rome|chicago|boston|sydney|toronto|vienna|oslo|dublin|lisbon|prague"
    "|cairo|delhi|seoul|athens|warsaw",
    "company": "apple|google|tesla|microsoft|amazon|toyota|samsung|nike|boeing|sony|intel|netflix",
    "country": "france|japan|brazil|canada|egypt|india|mexico|norway|kenya|peru|italy|poland|spain|chile|turkey"
    "|sweden|germany|greece",
    "event": "solar eclipse|full moon|formula one race|space launch|marathon in my town|champions league final"
    "|public holiday|debate on tv",
    "place": "museum|post office|library|zoo|city hall|airport bar|market|art gallery",
    "sport": "football|basketball|hockey|volleyball|baseball|rugby|handball|cricket",
    "product": "iphone|playstation|pixel phone|electric truck|smart watch|gaming laptop|drone|e-reader",
    "site": "youtube|reddit|github|twitter|wikipedia|instagram|netflix",
    "software": "python|firefox|ubuntu|android|excel|chrome|windows|photoshop|pytorch",
    "award": "nobel peace prize|oscar for best film|booker prize|ballon d'or|grammy for best album|turing award",
    "book": "hamlet|dracula|moby dick|the odyssey|don quixote|war and peace|frankenstein|emma|the hobbit|macbeth",
    "painting": "the mona lisa|guernica|the starry night|the night watch|the scream|the last supper|water lilies",
    "histevent": "world war two end|the titanic sink|columbus reach america|the berlin wall fall"
    "|the french revolution start|rome burn",
    "animals": "pandas|spiders|owls|whales|ants|lions|frogs|bats|horses|bees|penguins",
    "fact": "is the sky blue|do leaves fall in autumn|is the sea salty|do cats purr|does ice float|do we dream"
    "|is blood red|do birds sing",
    "first": "person on the moon|president of america|woman in space|emperor of rome|king of england"
    "|man at the south pole",
    "person": "albert einstein|marie curie|mozart|cleopatra|napoleon|leonardo da vinci|gandhi|beethoven|galileo"
    "|charles darwin",
    "thing": "a vaccine|a steam engine|a compass|a fridge|the heart|a battery|a magnet|gravity|a telescope",
    "continent": "africa|asia|europe|south america|north america|australia",
    "weather": "rain|snow|fog|hail|lightning|a rainbow|a storm|frost",
    "element": "gold|silver|iron|copper|oxygen|lead|sodium|helium|lithium",
    "holiday": "christmas|easter|diwali|thanksgiving|new year|ramadan|hanukkah",
    "lang": "french|spanish|german|italian|japanese|chinese|russian|arabic|portuguese|korean|dutch|polish|swedish"
    "|turkish|hindi|greek",
    "sent": "the train leaves at nine|where is the next hotel|i lost my keys|we would like the bill"
    "|my sister lives near the sea|it is cold outside|the soup is too hot|can you help me with my bag"
    "|the shop opens early tomorrow|i am allergic to nuts|he forgot her birthday|the dog sleeps under the table"
    "|we meet in front of the school|thank you for the lovely evening|this seat is taken"
    "|the meeting was moved to friday|she plays the piano every night|i have a headache|the children are tired"
    "|please close the window"
    "|how much does the red coat cost|our flight is late|the water is clean|i will call you back",
    "word": "library|necessary|window|mouse|child|bread|journey|knife|friend|garden|winter|harbour|answer|teacher"
    "|island|honey",
    "gram": "an adjective|a verb|a pronoun|the past tense|an accent|a silent letter|a gender for nouns|a proverb"
    "|an adverb|a preposition",
    "adj": "happy|quick|brave|cold|tired|beautiful|angry|small|rich|quiet|strange|clever",
    "langjob": "speaks many languages|translates books for a living|studies languages|speaks two languages"
    "|interprets at meetings",
    "w": "banana|python|river|pencil|orange|summer|letter|castle|rocket|planet|kitten|mirror",
}

OPENINGS = "||||||hey, |please |hi there, |ok so |quick question: |um, |well, |can you help? |one more thing: |sorry, "
ENDINGS = "|||||| thanks| please|?|?| thx|, if you can| :)|, cheers| for school|."
