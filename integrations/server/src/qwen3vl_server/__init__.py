"""A server for the models of qwen3vl, in the dialects of OpenAI, Cohere, Jina and vLLM.

`qwen3vl serve` starts one; `create_app` makes the application, for those who mount it in their own.
"""

from qwen3vl_server.app import create_app
from qwen3vl_server.settings import SERVER_POLICY, ServerSettings

__all__ = ["SERVER_POLICY", "ServerSettings", "create_app"]
