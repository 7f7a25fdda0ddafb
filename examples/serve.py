"""A rerank server on one model, in the shapes of text-embeddings-inference and of Cohere: docs/serving.md."""

import asyncio
from contextlib import asynccontextmanager
from os import getenv
from uuid import uuid4

from fastapi import FastAPI, HTTPException, Request
from pydantic import AliasChoices, BaseModel, Field
from torch.nn import Identity, Sigmoid

from xenc import DEFAULT_MODEL, CrossEncoder, Overloaded, PairError, XencError


class Asked(BaseModel, str_min_length=1):
    """A request in either shape: what Cohere calls documents are the other's texts."""

    query: str
    texts: list[str] = Field(min_length=1, validation_alias=AliasChoices("texts", "documents"))
    return_text: bool = Field(False, validation_alias=AliasChoices("return_text", "return_documents"))
    raw_scores: bool = False
    top_n: int | None = Field(None, ge=1)


def application(model=None) -> FastAPI:
    """The server on what has xenc's `submit`, `warmup` and `close`; by default on the environment's model."""
    model = model or CrossEncoder(
        getenv("XENC_MODEL", DEFAULT_MODEL), device=getenv("XENC_DEVICE"),
        model_kwargs={"dtype": getenv("XENC_DTYPE", "auto")}, execution=getenv("XENC_EXECUTION", "packed"),
        max_waiting_pairs=int(getenv("XENC_MAX_WAITING_PAIRS", 2000)),
    )  # fmt: skip

    @asynccontextmanager
    async def life(app):
        app.state.warm = asyncio.create_task(asyncio.to_thread(model.warmup, cache_dir=getenv("XENC_CACHE")))
        yield
        await asyncio.to_thread(model.close)

    app = FastAPI(lifespan=life)
    app.get("/health")(lambda: {"status": "live"})

    @app.get("/ready")
    async def ready():
        if not app.state.warm.done():
            raise HTTPException(503, "warming up: ask again", {"Retry-After": "1"})
        return {"status": "ready", "shapes": len(app.state.warm.result().shapes)}

    async def ranked(request, asked):
        await ready()
        pairs = [(asked.query, text) for text in asked.texts]
        try:
            future = model.submit(pairs, activation_fn=Identity() if asked.raw_scores else Sigmoid())
            scores, left = asyncio.wrap_future(future), asyncio.create_task(request.receive())
            left.add_done_callback(lambda _: scores.cancel())  # nothing else is received after the body
            scores.add_done_callback(lambda _: left.cancel())
            return sorted(enumerate((await scores).tolist()), key=lambda hit: -hit[1])
        except asyncio.CancelledError:
            raise HTTPException(503, "cancelled: the server stops") from None
        except Overloaded as error:
            status, headers = (429, {"Retry-After": "1"}) if error.retry_helps else (413, None)
            raise HTTPException(status, str(error), headers) from error
        except XencError as error:
            status = 422 if isinstance(error, PairError) else 500
            raise HTTPException(status, str(error).partition("\n")[0]) from error

    @app.post("/rerank")
    async def as_tei(request: Request, asked: Asked):
        texts = [{"text": text} if asked.return_text else {} for text in asked.texts]
        return [{"index": row, "score": score} | texts[row] for row, score in await ranked(request, asked)]

    @app.post("/v1/rerank")
    @app.post("/v2/rerank")
    async def as_cohere(request: Request, asked: Asked):
        texts = [{"document": {"text": text}} if asked.return_text else {} for text in asked.texts]
        hits = (await ranked(request, asked))[: asked.top_n]
        results = [{"index": row, "relevance_score": score} | texts[row] for row, score in hits]
        meta = {"api_version": {"version": request.url.path[2]}}
        return {"id": str(uuid4()), "results": results, "meta": meta}

    return app
