"""A small Hugging Face Hub on 127.0.0.1, for the real client: models only, all in memory, standard library only.

It has users with tokens, private and gated repositories, branches, pull requests, commits, regular and LFS files, a
"CDN" under another name that LFS downloads are redirected to, byte ranges, and faults on request; or, in place of LFS,
a Xet store, which is a folder that hf_xet writes and reads itself. Answers follow what huggingface_hub 1.31 to 2.4
reads; where the real Hub says more, this one says less.
"""

import base64
import hashlib
import json
import re
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

from card_rules import metadata_errors


@dataclass(frozen=True)
class Blob:
    """One stored file."""

    content: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def oid(self) -> str:
        """The id that git gives the blob: of the content, or of the pointer that stands for it."""
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(self.content)}\n"
        stored = pointer.encode() if self.lfs else self.content
        return hashlib.sha1(b"blob %d\0" % len(stored) + stored).hexdigest()


@dataclass
class Repo:
    """One model repository; `commits` holds the whole tree of each commit, `history` the ids in order."""

    owner: str
    private: bool = False
    gated: bool = False
    admitted: set[str] = field(default_factory=set)
    commits: dict[str, dict[str, Blob]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, tree: dict[str, Blob], message: str, ref: str = "main") -> str:
        seed = json.dumps([message, len(self.commits), sorted((path, blob.oid) for path, blob in tree.items())])
        sha = hashlib.sha1(seed.encode()).hexdigest()
        self.commits[sha], self.messages[sha], self.refs[ref] = tree, message, sha
        return sha

    def files(self, ref: str = "main") -> dict[str, bytes]:
        """The content of each file at a ref."""
        return {path: blob.content for path, blob in self.commits[self.refs[ref]].items()}

    def may_read(self, user: str | None) -> bool:
        return not self.private or user == self.owner

    def may_download(self, user: str | None) -> bool:
        return self.may_read(user) and (not self.gated or user == self.owner or user in self.admitted)


@dataclass(frozen=True)
class Request:
    """One line of the log."""

    method: str
    path: str
    token: str | None
    range: str | None
    status: int
    cdn: bool


@dataclass
class Fault:
    """Something that goes wrong with requests of a method, so many times, where the path matches."""

    method: str
    path: str
    status: int | None = None  # answer with this error instead
    cut: int | None = None  # send so many bytes of the body, then drop the connection
    flip: bool = False  # change one bit in the middle of the body
    times: int = 10**6


class HubError(Exception):
    """An answer that is an error: a status, the Hub's code for it, and its text."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message or code


def xet_hash(content: bytes) -> str:
    """The id under which a Xet store keeps a file."""
    import hf_xet

    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        [info] = hf_xet.hash_files([file.name])
    return str(info.hash)


class LocalHub:
    """The Hub; a context manager that serves while it is open."""

    def __init__(self) -> None:
        self.users = {"hf_alice": "alice", "hf_bob": "bob"}  # by token
        self.repos: dict[str, Repo] = {}
        self.uploaded: dict[str, bytes] = {}  # LFS objects by SHA-256
        self.faults: list[Fault] = []
        self.log: list[Request] = []  # every request that was answered
        self.lfs_names: tuple[str, ...] = (".safetensors", ".skops", ".png")  # endings of files stored by LFS
        self.xet_store: Path | None = None  # where large files go and come from by Xet; the Hub itself has no copy
        self.xet_files: dict[str, bytes] = {}  # what will come there, by SHA-256: the Hub cannot read the store
        self.size_lies: dict[str, int] = {}  # sizes to tell by path, where they are not the true ones
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler(cdn)) for cdn in (False, True)]
        ports = [server.server_port for server in self._servers]
        # Two names of one machine: some clients tell hosts apart by their names alone.
        self.url, self.cdn_url = f"http://127.0.0.1:{ports[0]}", f"http://localhost:{ports[1]}"

    def __enter__(self) -> "LocalHub":
        for server in self._servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Goes down: connections are refused from here on."""
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes] | None = None, **settings: Any) -> Repo:
        """Makes a repository with one commit."""
        repo = self.repos[repo_id] = Repo(repo_id.partition("/")[0], **settings)
        repo.commit({path: self.blob(path, content) for path, content in (files or {}).items()}, "initial commit")
        return repo

    def blob(self, path: str, content: bytes) -> Blob:
        return Blob(content, lfs=path.endswith(self.lfs_names))

    def requested(self, method: str = "GET") -> set[str]:
        """Names of the files that were asked for by one method."""
        found = (re.search(r"/resolve/[^/]+/(.+)", request.path) for request in self.log if request.method == method)
        return {unquote(match[1]) for match in found if match}

    def fault_for(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method == method and re.search(fault.path, path):
                fault.times -= 1
                return fault
        return None

    def _handler(self, cdn: bool) -> type[BaseHTTPRequestHandler]:
        return type("Handler", (_Handler,), {"hub": self, "cdn": cdn})


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; HTTP/1.0, so that no connection outlives the Hub."""

    hub: LocalHub
    cdn: bool
    fault: Fault | None = None

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *_: object) -> None: ...  # `LocalHub.log` has it all

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) or self._chunked()
        self.path, _, self.query = self.path.partition("?")
        self.fault = self.hub.fault_for(self.command, self.path)
        try:
            if self.fault and self.fault.status:
                raise HubError(self.fault.status, "", "injected")
            for method, pattern, action in _ROUTES:
                if (match := re.fullmatch(pattern, self.path)) and self.command in method.split():
                    action(self, *map(unquote, match.groups()))
                    return
            raise HubError(404, "", f"no route for {self.command} {self.path}")
        except HubError as error:
            self._send(
                error.status,
                json.dumps({"error": error.message}).encode(),
                {"X-Error-Code": error.code, "X-Error-Message": error.message},
            )

    def _chunked(self) -> bytes:
        """The body of a request that comes in chunks."""
        parts = []
        while self.headers.get("Transfer-Encoding") == "chunked" and (size := int(self.rfile.readline(), 16)):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        token = self._token()
        self.hub.log.append(Request(self.command, self.path, token, self.headers.get("Range"), status, self.cdn))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault and self.fault.flip:
            body = body[: len(body) // 2] + bytes([body[len(body) // 2] ^ 1]) + body[len(body) // 2 + 1 :]
        if self.fault and self.fault.cut is not None:
            self.wfile.write(body[: self.fault.cut])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _user(self) -> str | None:
        token = self._token()
        if token is not None and token not in self.hub.users:
            raise HubError(401, "", "Invalid credentials in Authorization header")
        return self.hub.users.get(token or "")

    def _repo(self, repo_id: str, write: bool = False) -> Repo:
        user, repo = self._user(), self.hub.repos.get(repo_id)
        if repo is None or not repo.may_read(user):
            raise HubError(404 if user else 401, "RepoNotFound", "Repository not found")
        if write and user != repo.owner:
            raise HubError(403 if user else 401, "", "You don't have the rights to write here")
        return repo

    def _sha(self, repo: Repo, revision: str) -> str:
        sha = repo.refs.get(revision, revision)
        if sha not in repo.commits:
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    # --- reading

    def _info(self, repo_id: str, revision: str = "main") -> None:
        repo = self._repo(repo_id)
        sha = self._sha(repo, revision)
        siblings = [{"rfilename": path} for path in repo.commits[sha]]
        self._json({"id": repo_id, "sha": sha, "private": repo.private, "gated": repo.gated, "siblings": siblings})

    def _entry(self, path: str, blob: Blob) -> dict[str, Any]:
        size = self.hub.size_lies.get(path, len(blob.content))
        entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob.oid, "size": size}
        return entry | ({"lfs": {"oid": blob.sha256, "size": size, "pointerSize": 130}} if blob.lfs else {})

    def _tree(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        tree = repo.commits[self._sha(repo, revision)]
        self._json([self._entry(path, blob) for path, blob in tree.items()])

    def _paths_info(self, repo_id: str, revision: str) -> None:
        repo = self._repo(repo_id)
        tree = repo.commits[self._sha(repo, revision)]
        wanted = parse_qs(self.body.decode())["paths"]
        self._json([self._entry(path, tree[path]) for path in wanted if path in tree])

    def _resolve(self, repo_id: str, revision: str, path: str) -> None:
        repo = self._repo(repo_id)
        if not repo.may_download(user := self._user()):
            raise HubError(403 if user else 401, "GatedRepo", "Access to this repository is restricted")
        sha = self._sha(repo, revision)
        blob = repo.commits[sha].get(path)
        if blob is None:
            raise HubError(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.oid}"', "Accept-Ranges": "bytes"}
        if not blob.lfs:
            self._ranged(blob.content, headers)
            return
        if self.hub.xet_store is None:
            self.hub.uploaded[blob.sha256] = blob.content
        else:
            route = f"{self.hub.url}/api/models/{repo_id}/xet-read-token/{sha}"
            headers |= {"X-Xet-Hash": xet_hash(blob.content), "X-Xet-Refresh-Route": route}
        linked = {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(len(blob.content))}
        self._send(302, b"", headers | linked | {"Location": f"{self.hub.cdn_url}/objects/{blob.sha256}"})

    def _object(self, sha256: str) -> None:
        if not self.cdn or sha256 not in self.hub.uploaded:
            raise HubError(404)
        self._ranged(self.hub.uploaded[sha256], {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})

    def _ranged(self, content: bytes, headers: dict[str, str]) -> None:
        """The content, or the part from the byte that a Range header names to the end."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked else 0
        if asked:
            headers = headers | {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        self._send(206 if asked else 200, content[start:], headers)

    def _whoami(self) -> None:
        if (user := self._user()) is None:
            raise HubError(401, "", "Invalid username or password.")
        self._json({"type": "user", "name": user, "orgs": []})

    # --- writing

    def _create(self) -> None:
        user, wanted = self._user(), json.loads(self.body)
        if user is None:
            raise HubError(401, "", "Invalid username or password.")
        owner = wanted.get("organization") or user
        repo_id = f"{owner}/{wanted['name']}"
        if owner != user:
            raise HubError(403, "", f"You don't have the rights to create a model under the namespace {owner!r}")
        if repo_id in self.hub.repos:
            self._json({"error": "You already created this model repo", "url": f"{self.hub.url}/{repo_id}"}, 409)
            return
        self.hub.add(repo_id, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
        self._json({"url": f"{self.hub.url}/{repo_id}"})

    def _branch(self, repo_id: str, branch: str) -> None:
        repo = self._repo(repo_id, write=True)
        if branch in repo.refs:
            raise HubError(409, "", "Reference already exists")
        repo.refs[branch] = self._sha(repo, json.loads(self.body or b"{}").get("startingPoint", "main"))
        self._json({})

    def _delete(self) -> None:
        asked = json.loads(self.body)
        repo_id = f"{asked['organization']}/{asked['name']}"
        self._repo(repo_id, write=True)
        del self.hub.repos[repo_id]
        self._send(200)

    def _refs(self, repo_id: str) -> None:
        refs = self._repo(repo_id).refs
        pulls = [{"name": ref, "ref": ref, "targetCommit": sha} for ref, sha in refs.items() if "refs/pr/" in ref]
        heads = [{"name": ref, "ref": ref, "targetCommit": sha} for ref, sha in refs.items() if "refs/pr/" not in ref]
        self._json({"branches": heads, "converts": [], "tags": [], "pullRequests": pulls})

    def _validate_yaml(self) -> None:
        errors = [{"message": message} for message in metadata_errors(json.loads(self.body)["content"])]
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def _writable(self, repo_id: str) -> Repo:
        """The repository, where the user may commit to it: anybody who is logged in may by a pull request."""
        repo = self._repo(repo_id, write="create_pr=1" not in self.query)
        if self._user() is None:
            raise HubError(401, "", "Invalid username or password.")
        return repo

    def _preupload(self, repo_id: str, revision: str) -> None:
        repo = self._writable(repo_id)
        tree = repo.commits[self._sha(repo, revision)]
        files = []
        for file in json.loads(self.body)["files"]:
            path, mode = file["path"], "lfs" if file["path"].endswith(self.hub.lfs_names) else "regular"
            known = tree.get(path)
            oid = None if known is None else known.sha256 if known.lfs else known.oid
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def _lfs_batch(self, repo_id: str) -> None:
        self._repo(repo_id)
        objects = json.loads(self.body)["objects"]
        actions = [{"upload": {"href": f"{self.hub.cdn_url}/objects/{o['oid']}"}} for o in objects]
        self._json({"objects": [{**o, "actions": a} for o, a in zip(objects, actions, strict=True)]})

    def _xet_token(self, repo_id: str, kind: str, revision: str) -> None:
        self._repo(repo_id, write=kind == "write")
        expires = int(time.time()) + 3600
        found = {"accessToken": "xet", "exp": expires, "casUrl": f"local://{self.hub.xet_store}"}
        names = ("X-Xet-Access-Token", "X-Xet-Token-Expiration", "X-Xet-Cas-Url")
        headers = {name: str(value) for name, value in zip(names, found.values(), strict=True)}
        self._send(200, json.dumps(found).encode(), headers | {"Content-Type": "application/json"})

    def _put_object(self, sha256: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != sha256:
            raise HubError(400, "", "the content is not what its id says")
        self.hub.uploaded[sha256] = self.body
        self._send(200)

    def _commit(self, repo_id: str, revision: str) -> None:
        pull, repo = "create_pr=1" in self.query, self._writable(repo_id)
        header, *operations = (json.loads(line) for line in self.body.splitlines())
        tree = dict(repo.commits[self._sha(repo, revision)])
        for operation in operations:
            path = operation["value"]["path"]
            if operation["key"] == "file":
                tree[path] = Blob(base64.b64decode(operation["value"]["content"]), lfs=False)
            elif operation["key"] == "lfsFile":
                stored = self.hub.uploaded if self.hub.xet_store is None else self.hub.xet_files
                tree[path] = Blob(stored[operation["value"]["oid"]], lfs=True)
            else:
                del tree[path]
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
        sha = repo.commit(tree, header["value"]["summary"], f"refs/pr/{number}" if pull else revision)
        answer = {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo_id}/commit/{sha}"}
        self._json(answer | ({"pullRequestUrl": f"{self.hub.url}/{repo_id}/discussions/{number}"} if pull else {}))


_ID = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("GET", rf"/api/models/{_ID}", _Handler._info),
    ("GET", rf"/api/models/{_ID}/revision/([^/]+)", _Handler._info),
    ("GET", rf"/api/models/{_ID}/tree/([^/]+)", _Handler._tree),
    ("POST", rf"/api/models/{_ID}/paths-info/([^/]+)", _Handler._paths_info),
    ("GET", r"/api/whoami-v2", _Handler._whoami),
    ("GET HEAD", rf"/{_ID}/resolve/([^/]+)/(.+)", _Handler._resolve),
    ("GET HEAD", r"/objects/([0-9a-f]{64})", _Handler._object),
    ("POST", r"/api/repos/create", _Handler._create),
    ("DELETE", r"/api/repos/delete", _Handler._delete),
    ("GET", rf"/api/models/{_ID}/refs", _Handler._refs),
    ("POST", r"/api/validate-yaml", _Handler._validate_yaml),
    ("POST", rf"/api/models/{_ID}/branch/([^/]+)", _Handler._branch),
    ("POST", rf"/api/models/{_ID}/preupload/([^/]+)", _Handler._preupload),
    ("POST", rf"/api/models/{_ID}/commit/([^/]+)", _Handler._commit),
    ("POST", rf"/{_ID}.git/info/lfs/objects/batch", _Handler._lfs_batch),
    ("GET", rf"/api/models/{_ID}/xet-(read|write)-token/([^/]+)", _Handler._xet_token),
    ("PUT", r"/objects/([0-9a-f]{64})", _Handler._put_object),
]
