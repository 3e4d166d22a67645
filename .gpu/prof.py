"""Times with and without replays, equality on the card, and a profile of sampling and of an update."""
import sys, time, traceback, tempfile, pathlib, json
from dataclasses import replace
import torch
from torch.profiler import profile, ProfilerActivity
from benchmarks.speed.cells import Cell
from benchmarks.speed.models import model_folder
from benchmarks.speed.our_worker import config_of, prompts_of
from softspoken.rl import replays, graphs
from softspoken.rl.loading import load_policy
from softspoken.rl.ppo import build_experience, update, ppo_loss
from softspoken.rl.rollout import generate_rollout
from softspoken.types import Scores
CPU = "--cpu" in sys.argv
DEV = "cpu" if CPU else "cuda"
MODEL = "flan-t5-small" if CPU else "flan-t5-base"
def sync():
    if not CPU: torch.cuda.synchronize()
def say(*a): print(*a, flush=True)
def table(p, n=22):
    rows = [e for e in p.key_averages() if getattr(e, "self_device_time_total", 0) > 0 or CPU]
    key = (lambda e: e.self_cpu_time_total) if CPU else (lambda e: e.self_device_time_total)
    kern = [e for e in rows if CPU or e.device_type.name == "CUDA"]
    total = sum(key(e) for e in kern)
    say(f"   total {total/1e3:.1f} ms in {sum(e.count for e in kern)} kernels")
    for e in sorted(kern, key=key, reverse=True)[:n]: say(f"   {key(e)/1e3:9.2f} ms {key(e)/max(total,1):5.1%} {e.count:6d}  {e.key[:130]}")
def one(dtype, scope, folder, prof):
    cell = Cell("softspoken", model=MODEL, batch=8 if CPU else 64, mini_batch=4 if CPU else 16, new_tokens=6 if CPU else 60, device=DEV, dtype=dtype, scope=scope)
    config, prompts = config_of(cell, folder), prompts_of(cell)
    policy = load_policy(config)
    policy.forbid(policy.forbidden | (torch.arange(len(policy.forbidden), device=policy.device) == policy.eos_id))
    for n, w in policy.adapter_parameters().items():
        if "lora_B" in n: w.data.normal_(std=0.02)
    opt = torch.optim.AdamW(policy.trainable().values(), lr=1e-5, eps=1e-5, weight_decay=0.0)
    def step(i, timed=True, profiled=None):
        sync(); t0 = time.perf_counter()
        r = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(i)); sync(); t1 = time.perf_counter()
        e = build_experience(r, Scores(torch.linspace(0, 1, cell.batch, device=policy.device), {}), config, config.kl_coef)
        update(policy, opt, e, config, torch.Generator().manual_seed(i)); sync(); t2 = time.perf_counter()
        if timed: say(f"  {dtype} {scope} replay={policy.can_replay} graphs={sum(p.graph is not None for p in policy.passes.values())}/{len(policy.passes)} rollout {t1-t0:.3f} update {t2-t1:.3f} mismatch {r.mismatch} peak {0 if CPU else torch.cuda.max_memory_reserved()/1e9:.1f} GB")
        return r, e
    policy.can_replay = False
    for i in range(2): r, e = step(i)
    if not CPU: policy.can_replay = True
    # equality of one micro-batch's gradient
    rows = torch.arange(4 if CPU else 16)
    def work(own, some, whole):
        loss, parts = ppo_loss(policy, own, some, config); (loss / whole).backward(); return parts
    def grads():
        g = torch.cat([w.grad.flatten() for w in policy.trainable().values() if w.grad is not None]).clone()
        for w in policy.trainable().values():
            if w.grad is not None: w.grad.zero_()
        return g
    whole = torch.tensor(100., device=policy.device)
    try:
        work(e, rows, whole); plain = grads(); work(e, rows, whole); again = grads()
        found = []
        for _ in range(4): replays.run(policy, e, rows, config, work, whole); found.append(grads())
        say(f"  gradient {dtype} {scope}: norm {plain.norm():.4g}; plain twice apart {(again-plain).norm()/plain.norm():.2e}; buffers {[f'{((g-plain).norm()/plain.norm()).item():.2e}' for g in found]} captured {[p.graph is not None for p in policy.passes.values()]}")
    except Exception: traceback.print_exc()
    for i in range(2, 6): r, e = step(i)
    if prof:
        acts = [ProfilerActivity.CPU] if CPU else [ProfilerActivity.CUDA]
        try:
            with profile(activities=acts) as p: r = generate_rollout(policy, prompts, config, torch.Generator().manual_seed(9)); sync()
            say(f"  -- rollout {dtype} {scope}"); table(p)
            with profile(activities=acts) as p: update(policy, opt, e, config, torch.Generator().manual_seed(9)); sync()
            say(f"  -- update {dtype} {scope}"); table(p)
        except Exception: traceback.print_exc()
    policy.let_go()
folder = str(model_folder(pathlib.Path(tempfile.mkdtemp()), MODEL))
if not CPU: say(torch.cuda.get_device_name(), torch.__version__)
began = time.time()
for dtype, scope, prof in (("bfloat16", "all", True), ("float32", "all", True), ("bfloat16", "decoder", True), ("float32", "decoder", False)):
    if time.time() - began > 75: break
    try: one(dtype, scope, folder, prof)
    except Exception: traceback.print_exc()
    if not CPU:
        import gc; gc.collect(); torch.cuda.empty_cache(); torch.cuda.reset_peak_memory_stats()
    say(f"  ({time.time()-began:.0f} s)")
