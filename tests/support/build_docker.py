"""Docker fake for build scripts. It appends one JSON line to the file ``$RECORD`` for each image build or other action.

Other variables: ``$DOCKER_STATUS`` (exit status of builds), ``$DOCKER_VERSION`` (server version), ``$DOCKER_SLOW``
(seconds that a build takes). ``compose config`` prints the file ``.compose.json`` in the directory of this program, and
``buildx bake --print`` prints ``.bake.json``.
"""

import json
import os
import re
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
FLAGS = ("--no-cache", "--pull", "--quiet", "-q", "--load", "--push", "--rm", "--force-rm", "--debug")
NAMED = {"-f": "file", "--file": "file", "--build-context": "contexts", "-t": "tags", "--tag": "tags"}
NAMED["--target"] = "target"


def record(**event):
    with open(os.environ["RECORD"], "a") as file:
        file.write(json.dumps(event) + "\n")


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return None


def image(dockerfile, sources, **event):
    """Record one image build. Return its exit status.

    The record contains the Dockerfile without the line that copies the bootstrap, and the text of the copied bootstrap.
    """
    text = sys.stdin.read() if dockerfile == "-" else read(dockerfile)
    bootstrap = None
    lines = []
    for line in (text or "").splitlines(True):
        copied = re.match(r"COPY --from=(\S+) --chown=0:0 proxy-bootstrap.cjs ./proxy-bootstrap.cjs$", line)
        if copied:
            assert bootstrap is None, "the Dockerfile has two COPY lines for the bootstrap"
            source = sources.get(copied[1]) or os.path.join(HERE, "." + copied[1])
            bootstrap = read(os.path.join(source, "proxy-bootstrap.cjs")) or "nothing"
        else:
            lines.append(line)
    text = None if text is None else "".join(lines).rstrip("\n")
    record(kind="image", dockerfile=text, bootstrap=bootstrap, ignore=read(dockerfile + ".dockerignore"), **event)
    if text is None:
        sys.stderr.write("unable to prepare context: no Dockerfile\n")
        return 1
    time.sleep(float(os.environ.get("DOCKER_SLOW", "0")))
    return int(os.environ.get("DOCKER_STATUS", "0"))


def build(words):
    found = {"file": [], "contexts": [], "tags": [], "target": []}
    options, positional, at = [], [], 0
    while at < len(words):
        word = words[at]
        at += 1
        if re.match(r"-q?[ft].", word) and not word.startswith("--"):  # joined short options, such as -qfFILE
            options += ["-q"] if word[1] == "q" else []
            letter = word.lstrip("-q")[0]
            found[NAMED["-" + letter]].append(word[word.index(letter) + 1 :])
            continue
        name, equals, value = word.partition("=")
        if word in FLAGS or not word.startswith("-") or word == "-":
            (options if word in FLAGS else positional).append(word)
            continue
        if not equals:
            value = words[at]
            at += 1
        if name in NAMED:
            found[NAMED[name]].append(value)
        else:
            options.append([name, value])
    assert len(positional) == 1, positional
    context = positional[0]
    contexts = dict(item.split("=", 1) for item in found["contexts"])
    own = contexts.pop("openclaw-egress", None)
    dockerfile = found["file"][-1] if found["file"] else "-" if context == "-" else os.path.join(context, "Dockerfile")
    if found["tags"] and found["tags"][0].startswith("openclaw-egress-bootstrap:"):
        os.makedirs(os.path.join(HERE, "." + found["tags"][0]))
        with open(os.path.join(HERE, "." + found["tags"][0], "proxy-bootstrap.cjs"), "w") as file:
            file.write(read(os.path.join(context, "proxy-bootstrap.cjs")))
        record(kind="probe", words=["bootstrap image"])
        return 0
    status = image(
        dockerfile,
        {"openclaw-egress": own} if own else {},
        context=context,
        tags=found["tags"],
        target=found["target"],
        options=options,
        contexts=contexts,
        kit=os.environ.get("DOCKER_BUILDKIT"),
    )
    if any(option in ("-q", "--quiet") for option in options):
        print("sha256:" + "0" * 64)
    return status


def services(config, names, **event):
    status = 0
    for name, service in config["services"].items():
        spec = service.get("build")
        if not spec or (names and name not in names):
            continue
        contexts = spec.get("additional_contexts") or {}
        status = status or image(
            os.path.join(spec["context"], spec.get("dockerfile") or "Dockerfile"),
            contexts,
            context=spec["context"],
            tags=[service.get("image") or config["name"] + "-" + name],
            target=[spec.get("target") or ""],
            args=spec.get("args"),
            contexts=sorted(set(contexts) - {"openclaw-egress"}),
            **event,
        )
    return status


def compose(words):
    verb = next(word for word in words if word in ("build", "up", "config", "down", "ps", "version"))
    at = words.index(verb)
    before, rest = words[:at], words[at + 1 :]
    options = [word for word in rest if word.startswith("-") and word != "--build"]
    names = [word for word in rest if not word.startswith("-")]
    config = json.loads(read(os.path.join(HERE, ".compose.json")))
    if verb == "config":
        print(json.dumps(config))
        record(kind="probe", words=words)
        return 0
    if "-" in before:
        config = json.loads(sys.stdin.read())
    if verb == "build" or "--build" in rest:
        status = services(config, names, options=options if verb == "build" else [])
        if status or verb == "build":
            return status
    record(kind="call", words=["compose", *before, verb, *options, *names])
    return 0


def bake(words):
    targets = json.loads(read(os.path.join(HERE, ".bake.json")))
    if "--print" in words:
        print(json.dumps(targets))
        record(kind="probe", words=words)
        return 0
    status = 0
    for name, spec in targets["target"].items():
        contexts = {}
        for at, word in enumerate(words):
            if word == "--set" and words[at + 1].startswith(name + ".dockerfile="):
                spec["dockerfile"] = words[at + 1].partition("=")[2]
            elif word == "--set":
                contexts["openclaw-egress"] = words[at + 1].partition("=")[2]
        path = os.path.join(spec["context"], spec["dockerfile"])
        status = status or image(path, contexts, context=spec["context"], tags=spec["tags"], target=[], options=[])
    return status


def main(words):
    if os.path.basename(sys.argv[0]) == "docker-compose":
        return compose(words)
    while words and words[0].startswith("-"):
        words = words[2:]
    verb = words[0] if words else ""
    if verb == "compose":
        return compose(words[1:])
    if verb in ("buildx", "image", "builder"):
        rest = words[1:]
        while rest[0].startswith("-"):
            rest = rest[2:]
        if rest[0] in ("build", "b"):
            return build(rest[1:])
        if rest[0] == "bake":
            return bake(rest[1:])
    if verb == "build" and "--help" not in words:
        return build(words[1:])
    major = int(os.environ.get("DOCKER_VERSION", "27.5.1").split(".")[0])
    if words[:2] == ["buildx", "version"]:
        record(kind="probe", words=words)
        return 0 if major >= 23 else 1
    if verb == "version" or "openclaw-egress-bootstrap" in " ".join(words):
        record(kind="probe", words=words)
        print(os.environ.get("DOCKER_VERSION", "27.5.1") if verb == "version" else "")
        return 0
    record(kind="call", words=words, stdin=sys.stdin.read() if verb == "load" else None, path=os.environ["PATH"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
