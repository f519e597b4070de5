"""A language model for LlamaIndex that follows a script and keeps the messages it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, LLMMetadata, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.mock import MockLLM
from llama_index.core.tools import BaseTool

ANSWER = "a yellow cross"
"""What it answers to every message that offers no tool and holds no tool's result."""


class ScriptedLLM(MockLLM, FunctionCallingLLM):
    """Calls the first tool it is offered with the user's text, then repeats what the tool returned."""

    messages: list[Any] = []  # noqa: RUF012 (pydantic copies it)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, is_function_calling_model=True)

    @property
    def images(self) -> list[ImageBlock]:
        """The images of all messages so far."""
        return [block for message in self.messages for block in message.blocks if isinstance(block, ImageBlock)]

    def chat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        self.messages.extend(messages)
        last, tools = messages[-1], options.get("tools") or ()
        reply = ChatMessage(role=MessageRole.ASSISTANT, content=ANSWER)
        if last.role == MessageRole.TOOL:
            reply.content = f"the tool says: {last.content}"
        elif tools:
            call = ToolSelection(
                tool_id="1", tool_name=tools[0].metadata.get_name(), tool_kwargs={"input": last.content}
            )
            reply = ChatMessage(role=MessageRole.ASSISTANT, content="", additional_kwargs={"tool_calls": [call]})
        return ChatResponse(message=reply)

    async def achat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        return self.chat(messages, **options)

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *_: Any,
        **__: Any,
    ) -> dict[str, Any]:
        """What `chat` is called with; agents pass the whole conversation as its history."""
        return {"messages": list(chat_history or []), "tools": list(tools)}

    def get_tool_calls_from_response(self, response: ChatResponse, *_: Any, **__: Any) -> list[ToolSelection]:
        return list(response.message.additional_kwargs.get("tool_calls", ()))
