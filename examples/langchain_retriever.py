"""LangChain on Enginehouse: a collection as a retriever, a model as an LLM, and both in one chain.

    pip install './client[langchain]'
    enginehouse ingest examples/documents --collection handbook
    python examples/langchain_retriever.py handbook "How many days of paid vacation are there?"

ENGINEHOUSE_URL is the address of the server, ENGINEHOUSE_API_KEY the API key if the server needs one.
"""

import os
import sys
from collections.abc import Iterator
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.documents import Document
from langchain_core.language_models.llms import LLM
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import GenerationChunk
from langchain_core.prompts import PromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from pydantic import ConfigDict

from enginehouse_client import Client
from enginehouse_client.langchain import EnginehouseRetriever


class EnginehouseLLM(LLM):
    """Generates text with a model of the server; each prompt is one job."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    client: Client
    model: str | None = None
    max_tokens: int = 128

    @property
    def _llm_type(self) -> str:
        return "enginehouse"

    def _options(self, stop: list[str] | None) -> Any:
        options = {"model": self.model, "max_tokens": self.max_tokens, "stop": stop}
        return {name: value for name, value in options.items() if value is not None}

    def _call(
        self, prompt: str, stop: list[str] | None = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> str:
        return self.client.ask(prompt, **self._options(stop))

    def _stream(
        self, prompt: str, stop: list[str] | None = None, run_manager: CallbackManagerForLLMRun | None = None, **kwargs: Any
    ) -> Iterator[GenerationChunk]:
        job = self.client.generate(messages=[{"role": "user", "content": prompt}], **self._options(stop))
        for event in self.client.stream(job):
            if event.type == "restart":
                raise RuntimeError("the text so far is void, as a worker died during the answer; ask again")
            if event.text:
                yield GenerationChunk(text=event.text)
        self.client.get(job).completed()  # raises JobFailed


def build_chain(client: Client, collection: str) -> Runnable[str, str]:
    """A chain that answers a question from the collection."""

    def join_passages(documents: list[Document]) -> str:
        return "\n\n".join(f"{document.metadata['citation']}: {document.page_content}" for document in documents)

    prompt = PromptTemplate.from_template("Answer only from these passages.\n\n{passages}\n\nQuestion: {question}\nAnswer:")
    retriever = EnginehouseRetriever(client=client, collection=collection, top_k=4)
    inputs = {"passages": retriever | join_passages, "question": RunnablePassthrough()}
    return inputs | prompt | EnginehouseLLM(client=client) | StrOutputParser()


def main() -> None:
    collection, question = sys.argv[1:]
    address = os.environ.get("ENGINEHOUSE_URL", "http://127.0.0.1:5000")
    with Client(address, api_key=os.environ.get("ENGINEHOUSE_API_KEY")) as client:
        for piece in build_chain(client, collection).stream(question):
            print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
