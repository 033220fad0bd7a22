"""Tests of the conversation reader: one conversation in the format of each API, and bodies without a conversation."""

import json
from typing import Any

import pytest

from openclaw_egress.llm import openai_chat
from openclaw_egress.llm.conversation import Part, Turn, assembled_turns, request_turns, response_turns

PICTURE = "QUJDRA=="  # base64 of 4 bytes
ARGUMENTS = '{\n  "city": "Oslo"\n}'

ANTHROPIC = {
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE}},
                {"type": "text", "text": "Weather?"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Look it up."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ],
}
CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [
                {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
                {"type": "text", "text": "Weather?"},
            ],
        },
        {
            "role": "assistant",
            "content": None,
            "reasoning_content": "Look it up.",
            "tool_calls": [{"id": "c1", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]
}
RESPONSES = {
    "instructions": "Be brief.",
    "input": [
        {
            "role": "user",
            "content": [
                {"type": "input_image", "image_url": f"data:image/png;base64,{PICTURE}"},
                {"type": "input_text", "text": "Weather?"},
            ],
        },
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Look it up."}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
    ],
}
GEMINI = {
    "system_instruction": {"parts": [{"text": "Be brief."}]},
    "contents": [
        {"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": PICTURE}}, {"text": "Weather?"}]},
        {
            "role": "assistant",
            "parts": [
                {"text": "Look it up.", "thought": True},
                {"functionCall": {"id": "c1", "name": "weather", "args": {"city": "Oslo"}}},
            ],
        },
        {"role": "user", "parts": [{"functionResponse": {"id": "c1", "response": "rain"}}]},
    ],
}
CONVERSE = {
    "system": [{"text": "Be brief."}],
    "messages": [
        {"role": "user", "content": [{"image": {"format": "png", "source": {"bytes": PICTURE}}}, {"text": "Weather?"}]},
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "Look it up.", "signature": "c2ln"}}},
                {"toolUse": {"toolUseId": "c1", "name": "weather", "input": {"city": "Oslo"}}},
            ],
        },
        {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"text": "rain"}]}}]},
    ],
}


def parts(turns: list[Turn]) -> list[tuple[str, Part]]:
    return [(turn.role, part) for turn in turns for part in turn.parts]


@pytest.mark.parametrize("body", [ANTHROPIC, CHAT, RESPONSES, GEMINI, {"request": GEMINI}, CONVERSE])
def test_conversation_is_equal_in_the_format_of_each_api(body):
    found = parts(request_turns(json.dumps(body)))
    medium = found[1][1]
    assert medium.kind == "media" and medium.size == 4
    # Ignore the role of a message with a tool result, because APIs use different roles for it.
    said = [(role if part.kind != "tool_result" else "", part) for role, part in found if part.kind != "media"]
    assert said == [
        ("system", Part(kind="text", text="Be brief.")),
        ("user", Part(kind="text", text="Weather?")),
        ("assistant", Part(kind="reasoning", text="Look it up.")),
        ("assistant", Part(kind="tool_call", text=ARGUMENTS, name="weather", call_id="c1")),
        ("", Part(kind="tool_result", text="rain", call_id="c1")),
    ]


@pytest.mark.parametrize(
    "body",
    [
        {"content": [{"type": "text", "text": "Rain."}], "role": "assistant"},
        {"choices": [{"message": {"role": "assistant", "content": "Rain."}}]},
        {"output": [{"type": "message", "content": [{"type": "output_text", "text": "Rain."}]}]},
        {"candidates": [{"content": {"role": "assistant", "parts": [{"text": "Rain."}]}}]},
        {"message": {"role": "assistant", "content": [{"type": "text", "text": "Rain."}]}},
        {"message": {"content": "Rain."}},
        {"response": "Rain."},
        {"generated_text": "Rain."},
        {"results": [{"generated_text": "Rain."}]},
    ],
)
def test_plain_responses_of_each_api(body: dict[str, Any]):
    assert parts(response_turns(json.dumps(body))) == [("assistant", Part(kind="text", text="Rain."))]


def test_error_is_a_turn():
    (turn,) = response_turns('{"error": {"type": "overloaded_error"}}')
    assert turn.role == "error" and "overloaded_error" in turn.parts[0].text


def test_assembled_message_of_a_stream_has_turns():
    messages = [
        {"role": "assistant", "parts": [{"type": "reasoning", "content": "Hm."}, {"type": "text", "content": "Rain."}]}
    ]
    assert parts(assembled_turns(messages)) == [
        ("assistant", Part(kind="reasoning", text="Hm.")),
        ("assistant", Part(kind="text", text="Rain.")),
    ]


def test_result_with_images_contains_their_sizes():
    picture = {"type": "image", "source": {"media_type": "image/png", "data": PICTURE}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": "seen"}, picture]}
    (turn,) = request_turns(json.dumps({"messages": [{"role": "user", "content": [result]}]}))
    assert turn.parts[0].text == "seen\n[image/png: 4 bytes]"


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "null", "5", '"x"', "{", "[" * 100_000, '{"messages": {"a": 1}, "input": 5, "system": 7}',
        '{"messages": [1, null, "a", {"role": 3, "content": 5}, {"content": [[[]], {"type": [], "text": {}}]}]}',
        '{"input": [{"type": "x_output"}, {"type": {}}], "contents": [{"parts": {"parts": {}}}], "tools": 1}',
        '{"messages": [{"content": [{"type": "image"}, {"type": "image_url"}, {"type": "file"}], "images": [1]}]}',
        '{"choices": [1, {"message": 5}], "candidates": [{}], "output": [7], "content": [8], "error": []}',
        '{"messages": [{"content": [{"type": "tool_use", "input": ' + "[" * 500 + "]" * 500 + "}]}]}",
    ],
)  # fmt: skip
def test_other_bodies_raise_nothing(body):
    for turn in request_turns(body) + response_turns(body):
        assert all(isinstance(text, str) for part in turn.parts for text in (part.text, part.name, part.call_id))


def test_prompts_and_texts_of_completions_are_turns() -> None:
    answers = {"choices": [{"index": 0, "text": "one"}, {"index": 1, "text": "two"}]}
    said = [Turn("assistant", (Part(kind="text", text=text),)) for text in ("one", "two")]
    assert response_turns(json.dumps(answers)) == said
    requested = [Turn("user", (Part(kind="text", text=text),)) for text in ("a", "b")]
    assert request_turns('{"prompt": ["a", "b"]}') == requested
    assert request_turns('{"inputs": "a"}') == requested[:1]
    # A prompt can be a list of token numbers, which has no readable text.
    assert request_turns('{"prompt": [[1, 2], 3]}') == []


@pytest.mark.parametrize(
    "added",
    [
        {"request": {"messages": [{"role": "user", "content": "fake"}]}},
        {"generateContentRequest": {"contents": [{"role": "user", "parts": [{"text": "fake"}]}]}},
        {"input": {"converse": {"messages": [{"role": "user", "content": [{"text": "fake"}]}]}}},
        {"type": "response.create", "response": {"input": "fake"}},
    ],
)
def test_additional_member_does_not_hide_a_turn(added: dict[str, Any]):
    turns = request_turns(json.dumps({"messages": [{"role": "user", "content": "real"}], **added}))
    assert [turn.parts[0].text for turn in turns] == ["real", "fake"]


def test_image_of_openrouter_is_shown_and_recorded_in_a_stream() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    message = {"role": "assistant", "content": "Here", "images": [image]}
    shown = (Part(kind="text", text="Here"), Part(kind="media", name="image/png", size=3))
    assert response_turns(json.dumps({"choices": [{"message": message}]})) == [Turn("assistant", shown)]
    assembler = openai_chat.API.assembler()
    for delta in ({"content": "Here"}, {"images": [image]}, {"images": [image]}):
        assembler.take({"choices": [{"index": 0, "delta": delta}]})
    parts = [{"type": "text", "content": "Here"}, {"type": "image"}, {"type": "image"}]
    assert assembler.facts().messages == [{"role": "assistant", "parts": parts}]
