"""Functions that extract a conversation for display: the turns of a request and its response, in one format.

One reader handles all APIs, because their members do not conflict, and because a compatible API may add members of
another API. No decision and no count depends on the result. The functions are pure and never raise.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openclaw_egress.llm.model import list_of, object_in, object_of
from openclaw_egress.wire.json_indent import indented

_INPUT_PARTS = ("text", "image", "audio", "document", "video")
_CONVERSE_MEDIA = ("image", "document", "video", "audio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a turn.

    ``kind`` is ``text``, ``reasoning``, ``refusal``, ``tool_call``, ``tool_result``, ``media`` or ``other``.
    """

    kind: str
    text: str = ""
    """The text. For a tool call, its arguments as JSON; for media, the address."""
    name: str = ""
    """The name of the tool, the media type or, if ``kind`` is ``other``, the type that the API states."""
    call_id: str = ""
    size: int | None = None
    """Size in bytes of media whose content is in the body."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A message of one participant. ``role`` is the API's own name, such as ``user``, ``assistant`` or ``tool``."""

    role: str
    parts: tuple[Part, ...]


def request_turns(body: str) -> list[Turn]:
    """Return the turns in a request's body; none if the body is not the JSON of a known API."""
    return list(each_request_turn(body))


def each_request_turn(body: str) -> Iterator[Turn]:
    """Yield the turns that `request_turns` returns. This saves work if the caller needs only the first turns."""
    return (turn for turn in _request_turns(body) if turn.parts)


def _request_turns(body: str) -> Iterator[Turn]:
    value = object_in(body) or {}
    # Read every member that can contain turns. Otherwise an additional member could hide the turns that the model saw.
    yield from _turns_of(value)
    # Read inner requests: Cloud Code Assist wraps its request, and token-counting requests can contain another request.
    counted = value.get("generateContentRequest"), object_of(value.get("input")).get("converse")
    for inner in (value.get("request"), *counted):
        yield from _turns_of(object_of(inner))
    if value.get("type") == "response.create":
        yield from _turns_of(object_of(value.get("response")))


def _turns_of(value: Mapping[str, Any]) -> Iterator[Turn]:
    for name in ("system", "instructions", "systemInstruction", "system_instruction"):
        if value.get(name):
            yield Turn("system", tuple(_content(value[name])))
    if isinstance(value.get("preamble"), str):
        yield Turn("system", tuple(_content(value["preamble"])))
    # Version 1 of Cohere's API has the user's last message in a separate member, not in the history.
    for message in (*map(object_of, list_of(value.get("chat_history"))), value):
        if isinstance(message.get("message"), str):
            yield _message({"role": str(message.get("role") or "user").lower(), "content": message["message"]})
    for name in ("messages", "contents"):
        yield from (_message(object_of(item)) for item in list_of(value.get(name)))
    for name in ("input", "prompt", "inputs"):  # Text Generation Inference uses `inputs`.
        if isinstance(value.get(name), str):
            yield Turn("user", tuple(_content(value[name])))
    # A request to Completions can have a list of prompts. The choices in the response are in the same order.
    yield from (Turn("user", tuple(_content(text))) for text in list_of(value.get("prompt")) if isinstance(text, str))
    yield from (_item(object_of(item)) for item in list_of(value.get("input")))


def response_turns(body: str) -> list[Turn]:
    """Return the turns in the body of a plain response; none if the body is not the JSON of a known API."""
    value = object_in(body) or {}
    value = object_of(value.get("response")) or value  # Cloud Code Assist wraps the response.
    found = [object_of(object_of(choice).get("message")) for choice in list_of(value.get("choices"))]
    found += [object_of(object_of(choice).get("content")) for choice in list_of(value.get("candidates"))]
    found.append(object_of(value.get("message")))
    found.append(object_of(object_of(value.get("output")).get("message")))  # Bedrock's Converse has the message here.
    if isinstance(value.get("content"), list):
        found.append(value)
    if isinstance(value.get("text"), str):  # Version 1 of Cohere's API and transcripts have `text`.
        found.append({"content": value["text"], "tool_calls": value.get("tool_calls")})
    turns = [_message({"role": "assistant", **message}) for message in found if message]
    # The items are in `output` in the Responses API, and in `steps` in Gemini's Interactions.
    items = [*list_of(value.get("output")), *list_of(value.get("steps"))]
    turns += [_item({"role": "assistant", **object_of(item)}) for item in items]
    texts = [object_of(choice).get("text") for choice in list_of(value.get("choices"))]
    texts += [object_of(result).get("generated_text") for result in list_of(value.get("results"))]  # watsonx.ai
    turns += [Turn("assistant", tuple(_content(text))) for text in texts if isinstance(text, str)]
    for name in ("response", "generated_text"):  # Ollama uses `response`, Text Generation Inference `generated_text`.
        if isinstance(value.get(name), str):
            turns.append(Turn("assistant", tuple(_content(value[name]))))
    if value.get("error"):
        turns.append(Turn("error", (Part(kind="text", text=_json(value["error"])),)))
    return [turn for turn in turns if turn.parts]


def realtime_turns(sent: Iterable[str], received: Iterable[str]) -> list[Turn]:
    """Return the turns of a session of OpenAI's Realtime API; none for the messages of another API.

    Take only the instructions (`session.update`) from the client's messages. The server repeats each item of the client
    (`conversation.item.added`, formerly `.created`), so its events contain the whole conversation in order.
    """
    turns = []
    for event in filter(None, map(object_in, sent)):
        instructions = object_of(event.get("session")).get("instructions")
        if event.get("type") == "session.update" and isinstance(instructions, str):
            turns.append(Turn("system", tuple(_content(instructions))))
    shown: set[object] = set()
    for event in filter(None, map(object_in, received)):
        kind, item = event.get("type"), object_of(event.get("item"))
        if kind in ("conversation.item.added", "conversation.item.created") and item.get("role") != "assistant":
            identity = str(item.get("id") or len(turns))
            if item.get("type") != "function_call" and identity not in shown:
                shown.add(identity)
                turns.append(_item(item))
        elif kind == "conversation.item.input_audio_transcription.completed":
            turns.append(Turn("user", tuple(_content(event.get("transcript")))))
        elif kind == "response.done":
            output = list_of(object_of(event.get("response")).get("output"))
            turns += [_item({"role": "assistant", **object_of(found)}) for found in output]
    return [turn for turn in turns if turn.parts]


def assembled_turns(messages: object) -> list[Turn]:
    """Return the turns of a stream's assembled message, in the format of ``gen_ai.output.messages``."""
    found = [object_of(message) for message in list_of(messages)]
    turns = [Turn(str(one.get("role") or "assistant"), tuple(_content(one.get("parts")))) for one in found]
    return [turn for turn in turns if turn.parts]


def _message(message: Mapping[str, Any]) -> Turn:
    """Return the turn for a message. In Gemini's API, the content is named `parts`."""
    parts: list[Part] = []
    for name in ("reasoning_content", "reasoning", "reasoning_text", "thinking"):
        if isinstance(message.get(name), str):
            parts.append(Part(kind="reasoning", text=message[name]))
            break
    content = message.get("content") if "content" in message else message.get("parts")
    role = str(message.get("role") or "user")
    if role == "tool":
        parts.append(_result(message.get("tool_call_id"), message.get("name") or message.get("tool_name"), content))
    else:
        parts += _content(content)
    if isinstance(message.get("refusal"), str):
        parts.append(Part(kind="refusal", text=message["refusal"]))
    for image in list_of(message.get("images")):
        parts += _part(image) if isinstance(image, dict) else [_media("image", image, image)]
    for call in map(object_of, list_of(message.get("tool_calls"))):
        function = object_of(call.get("function")) or object_of(call.get("custom")) or call
        given = next((function[name] for name in ("arguments", "input", "parameters") if function.get(name)), None)
        parts.append(_call(call.get("id"), function.get("name"), given))
    return Turn(role, tuple(parts))


def _item(item: Mapping[str, Any]) -> Turn:
    """Return the turn for an item of the Responses API or a step of Gemini: a message, or a turn with one part."""
    kind = str(item.get("type") or "message")
    if kind in ("message", "model_output", "user_input"):
        return _message({"role": "assistant", **item} if kind == "model_output" else item)
    role = "tool" if kind.endswith(("_output", "_result")) else "user" if kind in _INPUT_PARTS else "assistant"
    return Turn(role, tuple(_part(item)))


def _content(content: object) -> Iterator[Part]:
    if isinstance(content, str):
        if content:
            yield Part(kind="text", text=content)
        return
    if isinstance(content, dict):  # Gemini's `systemInstruction` is an object.
        content = list_of(content.get("parts")) or [content]
    for part in list_of(content):
        if isinstance(part, dict):
            yield from _part(part)
        elif isinstance(part, str) and part:
            yield Part(kind="text", text=part)


def _part(part: Mapping[str, Any]) -> Iterator[Part]:
    """Yield the parts in one element of a message's content. The format of elements depends on the API."""
    kind = str(part.get("type") or "")
    text = next((part[name] for name in ("text", "content", "thinking") if isinstance(part.get(name), str)), "")
    if kind in ("reasoning", "thinking", "redacted_thinking", "thought") or part.get("thought") is True:
        pieces = [object_of(piece).get("text") for name in ("summary", "content") for piece in list_of(part.get(name))]
        yield Part(kind="reasoning", text=text or "\n".join(piece for piece in pieces if isinstance(piece, str)))
    elif kind == "refusal":
        yield Part(kind="refusal", text=str(part.get("refusal") or text))
    elif kind.endswith(("tool_result", "function_result", "_output")) or kind == "tool_call_response":
        content = next((part[name] for name in ("content", "output", "response", "result") if name in part), "")
        yield _result(part.get("tool_use_id") or part.get("call_id") or part.get("id"), part.get("name"), content)
    elif kind in ("tool_use", "server_tool_use", "mcp_tool_use", "tool_call", "function_call", "custom_tool_call"):
        given = next((part[name] for name in ("input", "arguments") if name in part), None)
        yield _call(part.get("call_id") or part.get("id"), part.get("name"), given)
    elif "functionCall" in part:
        call = object_of(part["functionCall"])
        yield _call(call.get("id"), call.get("name"), call.get("args"))
    elif "functionResponse" in part:
        result = object_of(part["functionResponse"])
        yield _result(result.get("id"), result.get("name"), result.get("response"))
    elif "toolUse" in part:
        call = object_of(part["toolUse"])
        yield _call(call.get("toolUseId"), call.get("name"), call.get("input"))
    elif "toolResult" in part:
        result = object_of(part["toolResult"])
        yield _result(result.get("toolUseId"), None, result.get("content"))
    elif "reasoningContent" in part:
        thought = object_of(object_of(part["reasoningContent"]).get("reasoningText"))
        yield Part(kind="reasoning", text=str(thought.get("text") or ""))
    elif (medium := _medium(kind, part)) is not None:
        yield medium
    elif kind in ("", "text", "input_text", "output_text") and isinstance(text, str) and text:
        yield Part(kind="text", text=text)
    elif kind or part:
        yield Part(kind="other", name=kind, text=_json({name: part[name] for name in part if name != "type"}))


def _medium(kind: str, part: Mapping[str, Any]) -> Part | None:
    """Return the media part for an image, audio or a file; None for any other element."""
    inline, file = object_of(part.get("inlineData")), object_of(part.get("fileData"))
    if inline or file:
        return _media(inline.get("mimeType") or file.get("mimeType"), inline.get("data"), file.get("fileUri"))
    if not kind and (name := next((name for name in _CONVERSE_MEDIA if name in part), None)) is not None:
        inner = object_of(part[name])
        source = object_of(inner.get("source"))
        return _media(inner.get("format") or name, source.get("bytes"), object_of(source.get("s3Location")).get("uri"))
    if kind in ("image", "document"):
        source = object_of(part.get("source"))
        return _media(source.get("media_type") or kind, source.get("data"), source.get("url") or source.get("file_id"))
    if kind in ("image_url", "input_image"):
        given = part.get("image_url")
        return _media("image", None, object_of(given).get("url") or given or part.get("file_id"))
    if kind in ("input_audio", "output_audio", "audio") and isinstance(part.get("transcript"), str):
        return Part(kind="media", name="audio", text=part["transcript"])
    if kind in ("input_audio", "file", "input_file"):
        inner = object_of(part.get(kind)) or part
        data = inner.get("data") or inner.get("file_data")
        return _media(inner.get("format") or kind, data, inner.get("file_url") or inner.get("file_id"))
    return None


def _media(name: object, data: object, address: object) -> Part:
    """Return a media part. ``data`` is the content as Base64; ``address`` is the URL (also a ``data:`` URL) or ID."""
    if isinstance(address, str) and address.startswith("data:"):
        head, _, data = address.partition(",")
        name, address = head[5:].partition(";")[0] or name, None
    if isinstance(data, str) and data:
        return Part(kind="media", name=str(name or ""), size=len(data.rstrip("=")) * 3 // 4)
    return Part(kind="media", name=str(name or ""), text=address if isinstance(address, str) else "")


def _call(call_id: object, name: object, given: object) -> Part:
    text = given if isinstance(given, str) else "" if given is None else _json(given)
    return Part(kind="tool_call", text=indented(text), name=str(name or ""), call_id=str(call_id or ""))


def _result(call_id: object, name: object, content: object) -> Part:
    """Return a tool's result as text, with each media part replaced by its address or size."""
    if isinstance(content, list) and any(isinstance(piece, dict) for piece in content):
        parts = [part for piece in content if isinstance(piece, dict) for part in _flat(piece)]
        text = "\n".join(parts)
    else:
        text = content if isinstance(content, str) else _json(content)
    return Part(kind="tool_result", text=text, name=str(name or ""), call_id=str(call_id or ""))


def _flat(piece: Mapping[str, Any]) -> Iterator[str]:
    medium = _medium(str(piece.get("type") or ""), piece)
    if medium is not None and (medium.text or medium.size is not None):
        yield f"[{medium.name}: {medium.text or f'{medium.size} bytes'}]"
    else:
        yield piece["text"] if isinstance(piece.get("text"), str) else _json(piece)


def _json(value: object) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return "(nested too deeply)"
