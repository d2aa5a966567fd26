"""Unit vectors from any OpenAI-compatible `/v1/embeddings` endpoint."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, JsonValue, TypeAdapter

from steppo_env.errors import TransportError
from steppo_services import JsonService

__all__ = ["EmbeddingsEndpoint"]

WHAT = "the embeddings endpoint"


class _Embedding(BaseModel):
    index: int
    embedding: list[float]


class _Answer(BaseModel):
    """The answer to `POST /v1/embeddings`; its other members are not read."""

    data: list[_Embedding]


_ANSWER = TypeAdapter(_Answer)


class EmbeddingsEndpoint:
    """Embeds texts with one model.

    Args:
        url: The base URL, such as `http://127.0.0.1:8000/v1`.
        model: The model's name there.
        api_key_env: Environment variable that holds the key; None sends none.
        timeout_s: For one attempt.
    """

    def __init__(
        self, url: str, model: str, *, api_key_env: str | None = None, timeout_s: float = 30.0
    ) -> None:
        self.model = model
        self._service = JsonService(url, WHAT, api_key_env=api_key_env, timeout_s=timeout_s)

    @property
    def name(self) -> str:
        """What errors call it."""
        return f"{WHAT} {self._service.base_url} (model {self.model})"

    def close(self) -> None:
        """Close the connections."""
        self._service.close()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the embeddings of texts, each divided by its length.

        Returns:
            Shape (number of texts, dimension).

        Raises:
            TransportError: The endpoint failed, or its answer is not one finite vector for each
                text, all of one dimension.
        """
        inputs: list[JsonValue] = list(texts)
        body: JsonValue = {"model": self.model, "input": inputs, "encoding_format": "float"}
        items = sorted(
            self._service.post("embeddings", body, _ANSWER).data, key=lambda item: item.index
        )
        if [item.index for item in items] != list(range(len(texts))):
            raise self._error(f"gave {len(items)} embeddings for {len(texts)} texts")
        sizes = sorted({len(item.embedding) for item in items})
        if len(sizes) != 1 or sizes[0] == 0:
            raise self._error(f"gave embeddings of {' and '.join(map(str, sizes))} numbers")
        vectors = np.array([item.embedding for item in items], dtype=np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        bad = np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))
        if len(bad):
            text = texts[int(bad[0])][:80]
            raise self._error(f"gave an embedding that is zero or not finite, for {text!r}")
        return np.asarray(vectors / lengths, dtype=np.float32)

    def _error(self, problem: str) -> TransportError:
        return TransportError(f"{self.name} {problem}", http_status=200)
