"""Teach the embedded summarizer, by a larger teacher of its own making, within a budget of wall-clock time, on one GPU.

    python recipes/mini/pretrain.py --data .work/mini/arrays --start src/softspoken/assets/mini/summarizer \
        --output .work/mini/trained --minutes 7

Reads what `pretraining_data.py` wrote and needs torch, transformers and safetensors alone. Parts, by the share of the time:

1. student, dialogues    from the weights of `--start`; without it, new weights and the copying of lines first
2. teacher, dialogues    the student made wider and deeper
3. teacher, summaries    SAMSum, DialogSum and the corpus, a fifth of the first two heated, with a little of part 2
4. labels                the teacher's summaries of dialogues that have none, and of SAMSum's
5. student, labelled     part 3's examples and these labels, half of the loss against what the teacher would say in each place

A part that fails or has no time is said in the log and left out: without a teacher part 5 is part 3 for the student. Written:
log.jsonl; pretrained-*.safetensors after part 1; final-*.safetensors every half minute of part 5 and at the end; labels.json, some of
them to look at; decoded.json, token ids for the validation sets. Weights are float16, in parts below `PART` bytes: `unpack.py` joins
them. `--cpu --small --narrow --minutes 2` rehearses all of it.
"""

import argparse
import contextlib
import gc
import itertools
import json
import math
import multiprocessing
import os
import queue
import random
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import exercises
import torch
from exercises import PAD, Texts, batches, encoded, named, rejected, unlabelled, work, write_rows
from learner import Forward, Learner, Shape, capture_agrees, grown, new_model, plain_attention, twin
from safetensors.torch import load_file, save_file
from sampling import draw, gain, likest
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import T5ForConditionalGeneration

TOKENS = {"copying": 16_384, "dialogues": 49_152, "summaries": 32_768, "labelled": 32_768}  # a step
TEACHER = {"d_model": 512, "d_ff": 1024, "num_heads": 8}
TEACHER_LAYERS = 6
SMALL, SMALL_NARROW = (
    {"d_model": 384, "d_ff": 704, "num_heads": 6},
    {"d_model": 96, "d_ff": 160, "num_heads": 6},
)  # to rehearse
WHISPER = 0.3  # of the usual size: what is new in the teacher
WARM_STEPS = 40
SAMPLES, TEMPERATURE = 12, 0.7
LIMIT = 64  # tokens of a label
AT_ONCE = 384  # dialogues
REFERENCE = 0.5  # what the reference counts where there is one
DROPPED = 0.3  # of the labels, those least like what else was drawn
SHARE = 0.5  # of the student's loss, against the teacher
PART = 14 * 2**20
STUCK_S = 90
WAIT_S = 30
SETS = ("samsum", "corpus")


class Part(NamedTuple):
    who: str
    stage: str
    share: float
    first_rate: float
    last_rate: float
    dropout: float


COPYING = Part("student", "copying", 0.06, 2e-2, 2e-2, 0.0)
PARTS = [
    Part("student", "dialogues", 0.18, 1.2e-2, 1.2e-2, 0.0),
    Part("teacher", "dialogues", 0.21, 1e-2, 1e-2, 0.0),
    Part("teacher", "summaries", 0.17, 1e-2, 0.0, 0.15),
    Part("teacher", "labels", 0.12, 0.0, 0.0, 0.0),
    Part("student", "labelled", 0.32, 1e-2, 0.0, 0.1),
]
SHORT = [Part("student", "dialogues", 0.4, 1.2e-2, 1.2e-2, 0.0), Part("student", "labelled", 0.6, 1e-2, 0.0, 0.1)]
SHORT_S = 150  # with less time than this no teacher is made

# ------------------------------------------------------------------------------------------------ batches, ahead of use


class Batches:
    """The processes that make batches, and a thread that takes them out of the queue."""

    def __init__(self, texts: Texts, count: int, seed: int, scale: float, labels: Path) -> None:
        context = multiprocessing.get_context("fork")  # before CUDA starts: the workers share the texts
        self.tokens = {name: int(size * scale) for name, size in TOKENS.items()}
        self.stage, made = context.Value("i", 1), context.Queue(maxsize=24)
        self.ready: queue.Queue[Any] = queue.Queue(maxsize=8)
        self.workers = [
            context.Process(
                target=work, args=(seed * 1000 + n, texts, self.stage, made, self.tokens, labels), daemon=True
            )
            for n in range(count)
        ]
        for worker in self.workers:
            worker.start()
        threading.Thread(target=self.fetch, args=(made,), daemon=True).start()

    def fetch(self, made: Any) -> None:
        while True:
            self.ready.put(made.get())

    def of(self, stage: str, until: float) -> Iterator[tuple[Shape, Tensor]]:
        """Batches of the stage, until the time is up or no worker is left."""
        at = self.stage.value = list(exercises.MIXTURES).index(stage)
        waited = 0.0
        while time.monotonic() < until:
            try:
                of, shape, ids = self.ready.get(timeout=5)
            except queue.Empty:
                waited += 5
                alive = sum(worker.is_alive() for worker in self.workers)
                if not alive or waited > WAIT_S:
                    raise RuntimeError(f"no batches in {waited} s, {alive} workers alive") from None
                continue
            if of == at:
                waited = 0.0
                yield Shape(*shape), ids_of(ids)


def ids_of(ids: bytes) -> Tensor:
    return torch.frombuffer(bytearray(ids), dtype=torch.int16)


# ---------------------------------------------------------------------------------------------------------- the run


class Run:
    def __init__(self, args: argparse.Namespace, began: float) -> None:
        self.args, self.began, self.beat = args, began, time.monotonic()
        self.last = began + 60 * args.minutes
        args.output.mkdir(parents=True, exist_ok=True)
        self.scratch = Path(tempfile.mkdtemp())
        self.log_file = (args.output / "log.jsonl").open("a", encoding="utf-8")
        self.attention: Any = scaled_dot_product_attention
        self.decoded: dict[str, list[list[int]]] = {}

    def find_device(self) -> None:
        """Not before the workers were forked: what CUDA starts is not for them."""
        self.device = torch.device("cpu" if self.args.cpu or not torch.cuda.is_available() else "cuda")
        self.dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        self.capture = self.device.type == "cuda" and not self.args.eager

    def log(self, **what: Any) -> None:
        self.beat = time.monotonic()
        line = json.dumps({"s": round(self.beat - self.began, 1), **what})
        print(line, flush=True)
        self.log_file.write(line + "\n")
        self.log_file.flush()

    def watch(self) -> None:
        """Ends the process where nothing has moved for long: the command may then begin again, without graphs."""
        while True:
            time.sleep(5)
            if time.monotonic() - self.beat > STUCK_S:
                self.log(stuck=f"nothing has moved for {STUCK_S} s")
                self.leave(3)

    def leave(self, status: int) -> None:
        """Ends everything at once: the processes that make batches hold the output open, and threads wait for batches for ever."""
        for worker in multiprocessing.active_children():
            worker.kill()
        os._exit(status)

    def forward(self, model: T5ForConditionalGeneration) -> Forward:
        forward = Forward(model, self.dtype)
        forward.attention = self.attention
        return forward

    def held_out(self, texts: Texts) -> None:
        rows = {name: texts.sets[f"{name}_validation"][: 64 if self.args.small else 10_000] for name in SETS}
        self.pairs = {
            name: [encoded(*named(random.Random(0), texts, row, 0.0)) for row in some] for name, some in rows.items()
        }
        size = int(TOKENS["summaries"] * (0.06 if self.args.small else 1.0))
        self.validation = {
            name: [(Shape(*shape), ids_of(ids).long().to(self.device)) for shape, ids in batches(pairs, size)]
            for name, pairs in self.pairs.items()
        }

    @torch.no_grad()
    def losses(self, forward: Forward) -> dict[str, float]:
        """The mean negative log-likelihood of a token, for each validation set."""
        dropout, forward.dropout = forward.dropout, 0.0
        found = {}
        for name, some in self.validation.items():
            total, count = 0.0, 0.0
            for shape, ids in some:
                inputs, targets = split(ids, shape)
                here = (targets != PAD).sum()
                total, count = total + forward.loss(inputs, targets) * here, count + here
            found[name] = round(float(total / count), 4)
        forward.dropout = dropout
        return found

    def check(self, forward: Forward) -> None:
        """Whether the fused attention and captured steps are right on this machine."""
        shape, ids = max(self.validation["samsum"], key=lambda batch: len(batch[1]))
        found = []
        for attention in (scaled_dot_product_attention, plain_attention):
            forward.attention = attention
            try:
                loss = forward.loss(*split(ids, shape))
                loss.backward()
                size = sum(w.grad.square().sum() for w in forward.model.parameters() if w.grad is not None).sqrt()
                found.append((round(loss.item(), 4), round(float(size), 4)))
            except RuntimeError as error:
                found.append((math.nan, math.nan))
                self.log(attention=attention.__name__, error=str(error)[:300])
            forward.model.zero_grad(set_to_none=True)
        fused, plain = found
        right = all(math.isclose(a, b, rel_tol=0.05) for a, b in zip(fused, plain, strict=True))
        self.attention = forward.attention = scaled_dot_product_attention if right else plain_attention
        self.log(attention="fused" if right else "plain", fused=fused, plain=plain)
        if not self.capture:
            return
        batch = ids.to(torch.int16).cpu()
        for dropout, tolerance in ((0.0, 0.02), (0.1, 0.3)):
            forward.dropout = dropout
            self.capture, told = capture_agrees(forward, batch, shape, 1e-3, tolerance)
            self.log(captured=self.capture, dropout=dropout, why=told)
            if not self.capture:
                break
        forward.dropout = 0.0

    def train(self, made: Batches, forward: Forward, part: Part, until: float, teacher: Forward | None = None) -> None:
        """One part's steps; the rate goes from its first to its last over the part's time."""
        forward.dropout = part.dropout
        learner = Learner(forward, self.capture, teacher, SHARE if teacher else 0.0)
        first = evaluated = saved = logged = time.monotonic()
        self.log(part=f"{part.who}, {part.stage}", seconds=round(until - first), teacher=teacher is not None)
        step, before, tokens, broken = 0, 0, 0, ""
        for shape, batch in made.of(part.stage, until):
            now = self.beat = time.monotonic()
            gone = min(1.0, (now - first) / (until - first))
            rate = part.first_rate + (part.last_rate - part.first_rate) * gone
            learner.step(batch, shape, rate * min(1.0, (step + 1) / WARM_STEPS))
            step, tokens = step + 1, tokens + len(batch)
            if learner.broken != broken:
                broken = learner.broken
                self.log(capture_given_up=broken[:300])
            if now - logged > (2 if self.args.small else 7.5):
                spent, mean = time.monotonic() - logged, learner.total.item() / (step - before)
                learner.total.zero_()
                told = {
                    "loss": round(mean, 4),
                    "tokens_per_s": int(tokens / spent),
                    "steps_per_s": round((step - before) / spent, 1),
                }
                if not math.isfinite(mean):
                    raise RuntimeError(f"a mean loss of {mean} after {step} steps")
                self.log(step=step, **told, rate=round(rate, 5), graphs=len(learner.graphs))
                logged, before, tokens = time.monotonic(), step, 0
            if now - evaluated > (4 if self.args.small else 15):
                skipped = int(learner.optimizer.skipped.item())
                self.log(step=step, validation=self.losses(forward), skipped=skipped, gpu_gb=memory())
                evaluated = time.monotonic()
            if part.who == "student" and part.last_rate < part.first_rate and now - saved > 30:
                self.save(forward.model, "final")
                saved = time.monotonic()
        found = self.losses(forward)
        self.log(end=f"{part.who}, {part.stage}", steps=step, validation=found, gpu_gb=memory())
        forward.dropout = 0.0
        if not math.isfinite(found["samsum"]):
            raise RuntimeError("the weights are no numbers any more")

    def label(self, texts: Texts, teacher: Forward, folder: Path, until: float) -> None:
        """The teacher's summaries, written for the workers: all of SAMSum's dialogues, then others until the time is up."""
        rng = random.Random(self.args.seed)
        at_once = 8 if self.args.small else AT_ONCE
        kept: dict[str, list[tuple[float, str, str]]] = {}
        first = time.monotonic()
        for name, source, end in (
            ("relabelled", "samsum", first + 0.4 * (until - first)),
            ("labels", "dialogues", until),
        ):
            some, why = unlabelled(rng, texts, source), Counter()
            kept[name], done = [], 0
            while (time.monotonic() < end or not done) and (block := list(itertools.islice(some, 8 * at_once))):
                block.sort(key=lambda row: len(row[0]))
                for at in range(0, len(block), at_once):
                    chunk = block[at : at + at_once]
                    if time.monotonic() > end and done:
                        break
                    self.beat = time.monotonic()
                    said, gains = self.summarized(teacher, chunk, reference=source == "samsum")
                    for (dialogue, _, speakers), ids, worth in zip(chunk, said, gains, strict=True):
                        reason = rejected(texts, dialogue, speakers, ids)
                        why[reason or "kept"] += 1
                        if not reason:
                            kept[name].append((worth, dialogue, ids[:-1]))
                    done += len(chunk)
            worths = sorted(worth for worth, *_ in kept[name])
            least = worths[int(DROPPED * len(worths))] if worths else 0.0
            kept[name] = [row for row in kept[name] if row[0] >= least]
            self.log(
                labels=name, summarized=done, seconds=round(time.monotonic() - first, 1),
                why=dict(why), least=round(least, 3), most=round(worths[-1], 3) if worths else 0, kept=len(kept[name]),
            )  # fmt: skip
            first = time.monotonic()
        if sum(map(len, kept.values())) < (2 if self.args.small else 2000):
            raise RuntimeError("too few labels were kept")
        for name, some in kept.items():
            if not some:
                continue
            write_rows(folder / f"{name}.xz", [(dialogue, said) for _, dialogue, said in some])
        shown = {
            name: [[[*map(ord, d)], [*map(ord, s)], round(w, 3)] for w, d, s in some[:100]]
            for name, some in kept.items()
        }
        self.write("labels.json", shown)

    def summarized(
        self, teacher: Forward, chunk: Sequence[tuple[str, str, set[str]]], reference: bool
    ) -> tuple[list[str], list[float]]:
        inputs = padded([dialogue + chr(1) for dialogue, *_ in chunk], 32, self.device)
        drawn = draw(teacher, inputs, SAMPLES, LIMIT, TEMPERATURE)
        against = padded([said for _, said, _ in chunk], 8, self.device)[:, :LIMIT] if reference else None
        best, worth = likest(drawn, against, REFERENCE)
        return ["".join(map(chr, row)).rstrip(chr(PAD)) for row in best.tolist()], worth.tolist()

    @torch.no_grad()
    def decode(self, forward: Forward, name: str, samples: int = 1, said_as: str = "") -> float:
        """Summaries of a validation set, greedy or the likest of several, into decoded.json; returns how near they are to the references,
        by the F1 of their tokens."""
        pairs = self.pairs[name][: 16 if self.args.small else 10_000]
        order = sorted(range(len(pairs)), key=lambda place: len(pairs[place][0]))
        found: list[list[int]] = [[]] * len(pairs)
        near = 0.0
        for at in range(0, len(order), AT_ONCE):
            places = order[at : at + AT_ONCE]
            inputs = padded([pairs[place][0] for place in places], 16, self.device)
            drawn = draw(forward, inputs, samples, LIMIT, TEMPERATURE if samples > 1 else 0.0)
            best = likest(drawn)[0] if samples > 1 else drawn[:, 0]
            near += float(gain(best, padded([pairs[place][1] for place in places], 8, self.device)).sum())
            for place, row in zip(places, best.tolist(), strict=True):
                found[place] = [token for token in row if token > 1]
        self.decoded[said_as or f"{name}_validation"] = found
        self.write("decoded.json", self.decoded)
        self.log(decoded=said_as or name, rows=len(found), samples=samples, token_f1=round(100 * near / len(found), 2))
        return near / len(found)

    def write(self, name: str, what: Any) -> None:
        self.move(lambda path: path.write_text(json.dumps(what), "utf-8"), name)

    def move(self, write: Any, name: str) -> None:
        """Written elsewhere first: nothing half written lies in the output."""
        beside = self.scratch / name
        write(beside)
        (self.args.output / name).write_bytes(beside.read_bytes())

    def save(self, model: T5ForConditionalGeneration, name: str) -> None:
        """NAME-1.safetensors …, float16, each below `PART`."""
        shared = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
        parts: list[dict[str, Tensor]] = [{}]
        size = 0
        for key, weight in model.state_dict().items():
            if key in shared:
                continue
            half = weight.detach().half().cpu().contiguous()
            if size + half.nbytes > PART:
                parts.append({})
                size = 0
            parts[-1][key] = half
            size += half.nbytes
        for number, part in enumerate(parts, start=1):
            self.move(
                lambda path, part=part: save_file(part, path, metadata={"format": "pt"}), f"{name}-{number}.safetensors"
            )


def split(ids: Tensor, shape: Shape) -> tuple[Tensor, Tensor]:
    inputs, targets = ids[: shape.rows * shape.given], ids[shape.rows * shape.given :]
    return inputs.view(shape.rows, shape.given), targets.view(shape.rows, shape.target)


def padded(some: list[str], multiple: int, device: torch.device) -> Tensor:
    longest = -(-max(map(len, some)) // multiple) * multiple
    whole = "".join(each.ljust(longest, chr(PAD)) for each in some).encode("utf-16-le")
    return ids_of(whole).view(len(some), longest).long().to(device)


def memory() -> float:
    return round(torch.cuda.max_memory_reserved() / 2**30, 1) if torch.cuda.is_available() else 0.0


def release() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def parts_for(args: argparse.Namespace) -> list[Part]:
    if args.minutes * 60 < SHORT_S and not args.small:
        return SHORT
    return PARTS if args.start else [COPYING, *PARTS]


def teach(
    run: Run, texts: Texts, made: Batches, student: Forward, parts: list[Part], ends: dict[Part, float], labels: Path
) -> Forward | None:
    """The teacher, trained, its labels written; None where it failed or is no better than the student was."""
    layers, changes = TEACHER_LAYERS, TEACHER
    if run.args.small:
        layers, changes = 5, SMALL_NARROW if run.args.narrow else SMALL
    teacher = run.forward(grown(student.model, layers, WHISPER, **changes))
    run.log(
        teacher=sum(w.numel() for w in teacher.model.parameters()),
        validation=run.losses(teacher),
        of_student=run.losses(student),
    )
    for part in parts:
        if part.stage == "labels":
            continue
        run.train(made, teacher, part, ends[part])
        release()
    teacher.model.requires_grad_(False)
    run.decode(teacher, "samsum", 1, "teacher_greedy")
    found = run.decode(teacher, "samsum", SAMPLES, "teacher_likest")
    if found < run.begun_near:  # by what it says: the loss rises with its certainty while what it says gets better
        raise RuntimeError(f"the teacher's summaries have F1 {found:.3f}, the student began with {run.begun_near:.3f}")
    labelling = next(part for part in parts if part.stage == "labels")
    try:
        run.label(texts, teacher, labels, ends[labelling])
    except Exception as error:  # whatever it is, the student can still be trained with this teacher
        run.log(no_labels=f"{type(error).__name__}: {str(error)[:300]}", where=traceback.format_exc()[-600:])
    release()
    return teacher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="folder of a summarizer of this size and vocabulary to go on from")
    parser.add_argument("--minutes", type=float, default=7.0, help="from the start of the script to the last step")
    parser.add_argument("--until", type=float, help="the same as seconds since 1970, in place of --minutes")
    parser.add_argument("--workers", type=int, default=max(1, min(10, (os.cpu_count() or 2) - 3)))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--eager", action="store_true", help="without CUDA graphs")
    parser.add_argument("--cpu", action="store_true", help="on the CPU, in float32")
    parser.add_argument("--small", action="store_true", help="a rehearsal: tiny batches, few rows to validate on")
    parser.add_argument("--narrow", action="store_true", help="a rehearsal: a tiny model as well, from new weights")
    args = parser.parse_args()
    began = time.monotonic()
    if args.until:
        args.minutes = (args.until - time.time()) / 60
    run = Run(args, began)
    random.seed(args.seed)
    texts = Texts(args.data)
    gc.collect()
    gc.freeze()  # a capture collects garbage: these texts are none
    labels = run.scratch / "labels"
    labels.mkdir()
    made = Batches(texts, args.workers, args.seed, 0.06 if args.small else 1.0, labels)
    run.log(
        minutes=round(args.minutes, 2),
        rows={name: len(each) for name, each in texts.sets.items()},
        workers=args.workers,
    )

    run.find_device()
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)  # it has no gradient for the position bias
    changes = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_heads": 4} if args.narrow else {}
    model = new_model(texts.about["vocabulary"], **changes)
    if args.start and not args.narrow:
        weights = load_file(args.start / "model.safetensors")
        model.load_state_dict({key: half.float() for key, half in weights.items()}, strict=False)
    model.to(run.device)
    torch.manual_seed(args.seed)
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    threading.Thread(target=run.watch, daemon=True).start()
    # Everything on one stream that is not the default one: what is captured later was always computed there.
    try:
        with torch.cuda.stream(torch.cuda.Stream()) if run.device.type == "cuda" else contextlib.nullcontext():
            everything(run, texts, made, model, labels)
    except BaseException:
        run.log(failed=traceback.format_exc()[-1500:])
        run.leave(4)
    run.leave(0)


def everything(run: Run, texts: Texts, made: Batches, model: T5ForConditionalGeneration, labels: Path) -> None:
    run.held_out(texts)
    student = run.forward(model)
    device = torch.cuda.get_device_name() if run.device.type == "cuda" else "cpu"
    run.log(parameters=sum(w.numel() for w in model.parameters()), device=device, torch=torch.__version__)
    run.check(student)
    parts = parts_for(run.args)
    run.begun_with = run.losses(student)["samsum"]
    first = time.monotonic()
    run.log(begun_with=run.begun_with, seconds=round(run.last - first))
    run.begun_near = run.decode(student, "samsum", 1, "begun_with")
    whole, end, ends = sum(part.share for part in parts), first, {}
    for part in parts:
        end += (run.last - first) * part.share / whole
        ends[part] = end

    *earlier, last = parts
    for part in [part for part in earlier if part.who == "student"]:
        guarded(run, student, lambda part=part: run.train(made, student, part, ends[part]))
        release()
    run.save(student.model, "pretrained")
    teacher = None
    if teaching := [part for part in earlier if part.who == "teacher"]:
        try:
            teacher = teach(run, texts, made, student, teaching, ends, labels)
        except Exception as error:  # whatever it is, the student is still trained
            run.log(no_teacher=f"{type(error).__name__}: {str(error)[:300]}", where=traceback.format_exc()[-600:])
        release()
    if not list(labels.glob("*.xz")):
        last = last._replace(stage="summaries")
    if teacher is not None and not guarded(run, student, lambda: run.train(made, student, last, run.last, teacher)):
        teacher = None
        release()
    if teacher is None:
        guarded(run, student, lambda: run.train(made, student, last, run.last))
    run.save(student.model, "final")
    student.model.load_state_dict({key: weight.half().float() for key, weight in student.model.state_dict().items()})
    for name in SETS:
        run.decode(student, name)
    run.decode(student, "samsum", SAMPLES, "likest")
    run.log(all="done")


def guarded(run: Run, forward: Forward, train: Any) -> bool:
    """Whether it went well; else what failed is said and the weights are those of before, if it broke them."""
    kept = twin(forward.model).state_dict()
    try:
        train()
    except Exception as error:
        run.log(failed=f"{type(error).__name__}: {str(error)[:300]}", where=traceback.format_exc()[-600:])
        forward.dropout = 0.0
        forward.model.zero_grad(set_to_none=True)
        loss = run.losses(forward)["samsum"]
        if not loss < 2 * run.begun_with:
            forward.model.load_state_dict(kept)
            run.log(weights="those of before", loss_was=loss)
        return False
    return True


if __name__ == "__main__":
    main()
