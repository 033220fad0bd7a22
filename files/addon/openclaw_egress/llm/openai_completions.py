"""OpenAI's Completions and Mistral's Fill-in-the-middle, plain and streamed, and compatible APIs.

Source: the API references of `POST /v1/completions` and `POST /v1/fim/completions`, and the types of the packages
`openai` and `mistralai`. vLLM, llama.cpp, LM Studio and Ollama serve the first path too. A choice of Completions has
`text` instead of a message; a choice of Mistral has a message. All other members are the same as in Chat Completions.
"""

from __future__ import annotations

import re
from dataclasses import replace

from openclaw_egress.llm import openai_chat

API = replace(
    openai_chat.API,
    name="completions",
    path=re.compile(r"(?<!/chat)(?<!/usage)/completions/?$"),
    examples=("/v1/completions", "/openai/deployments/my-gpt/completions", "/v1/fim/completions"),
    # Azure OpenAI (`/deployments/NAME/`) and OpenAI's first API (`/engines/NAME/`) have the model in the path.
    model_in_path=re.compile(r"/(?:deployments|engines)/([^/]{1,128})/"),
    operation="text_completion",
    hosts={},
    other_paths=None,
)
