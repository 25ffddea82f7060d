"""Proximal policy optimisation (Schulman et al. 2017) in the fluid service, with stable-baselines3.

Moves that are not open are masked (Huang and Ontanon 2020: sb3-contrib's MaskablePPO), as they are where the policy is
asked later; between two questions the only open move is to hold, and nothing is learned from that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib import MaskablePPO
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.policies import evaluate
from benchmarks.policies.fluid import QUESTIONS, Fluid
from benchmarks.policies.incidents import Incidents
from tuning.planning.features import CLIP, FEATURES
from tuning.planning.moves import MOVES

LANES = 128
HIDDEN = (32, 32)
EPISODE = QUESTIONS - 1

Layers = list[tuple[np.ndarray, np.ndarray]]


class Lanes(VecEnv):
    """LANES incidents at once, drawn anew for every episode; all of them end together."""

    def __init__(self, incidents: Incidents, lanes: int, seed: int) -> None:
        self.render_mode = None
        box = spaces.Box(-CLIP, CLIP, (len(FEATURES),), np.float32)
        super().__init__(lanes, box, spaces.Discrete(len(MOVES)))
        self.incidents, self.rng = incidents, np.random.default_rng(seed)
        self.world, self.free, self.moves = self._drawn(), np.ones((lanes, len(MOVES)), bool), np.zeros(lanes, int)

    def _drawn(self) -> Fluid:
        rows = np.asarray(self.rng.integers(self.incidents.count, size=self.num_envs))
        return Fluid(self.incidents.take(rows), int(self.rng.integers(2**31)))

    def _asked(self) -> np.ndarray:
        inputs, self.free = self.world.question()
        return np.asarray(inputs, dtype=np.float32)

    def reset(self) -> np.ndarray:
        self.world = self._drawn()
        return self._asked()

    def step_async(self, actions: np.ndarray) -> None:
        self.moves = np.asarray(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        reward, over = self.world.step(self.moves), self.world.done
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if over:
            last = self._asked()
            for lane, info in enumerate(infos):
                info["terminal_observation"] = last[lane]
            self.world = self._drawn()
        return self._asked(), reward.astype(np.float32), np.full(self.num_envs, over), infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def action_masks(self) -> np.ndarray:
        return self.free

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        found = getattr(self, method_name)(*args, **kwargs)
        return list(found) if isinstance(found, np.ndarray) else [found] * self.num_envs

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def layers_of(model: MaskablePPO) -> Layers:
    """The policy's own network: two hidden layers and the logits of the moves."""
    policy = model.policy
    linear = [m for m in [*policy.mlp_extractor.policy_net, policy.action_net] if isinstance(m, torch.nn.Linear)]
    return [(m.weight.detach().numpy().astype(float), m.bias.detach().numpy().astype(float)) for m in linear]


def train(
    train_on: Incidents, check_on: Incidents, *, steps: int, limit_s: float, kept: Path, seed: int = 1
) -> tuple[Layers | None, int, dict[str, float]]:
    """(layers that did best on `check_on`, steps done, their figures there); None as layers where `limit_s` of CPU time
    was over first.

    What is done is kept in the folder `kept` and taken up from there.
    """
    torch.set_num_threads(1)
    lanes = Lanes(train_on, LANES, seed)
    place, began = kept / "ppo.zip", time.process_time()
    model = MaskablePPO(
        "MlpPolicy", lanes, n_steps=EPISODE, batch_size=1056, n_epochs=6, learning_rate=1e-3, gamma=0.99,
        gae_lambda=0.95, ent_coef=0.01, seed=seed, device="cpu",
        policy_kwargs={"net_arch": {"pi": list(HIDDEN), "vf": [64, 64]}, "activation_fn": torch.nn.Tanh},
    )  # fmt: skip
    if place.exists():
        model.set_parameters(str(place), device="cpu")
        model.num_timesteps = int((kept / "ppo.steps").read_text())
        lanes.rng = np.random.default_rng([seed, model.num_timesteps])  # other incidents than those of the beginning
    best = _best_of(kept)
    while model.num_timesteps < steps:
        if time.process_time() - began > limit_s:
            return None, model.num_timesteps, {}
        # A rate that falls to a tenth: large steps first, small ones at the end.
        left = 1 - model.num_timesteps / steps
        model.lr_schedule = lambda _, now=1e-3 * max(0.1, left): now
        model.ent_coef = 0.01 * max(0.1, left)
        before = model.num_timesteps
        model.learn(20 * LANES * EPISODE, reset_num_timesteps=False)
        assert model.num_timesteps > before
        found = layers_of(model)
        figures = evaluate.run(check_on, chooses(found), seed=7)
        print(model.num_timesteps, figures, f"{time.process_time() - began:.0f} s of CPU", flush=True)
        if best is None or figures["reward"] > best[1]["reward"]:
            best = (found, figures)
        _keep(kept, model, best)
    assert best is not None
    return best[0], model.num_timesteps, best[1]


def chooses(layers: Layers) -> evaluate.Chooses:
    """The policy of these layers, the likeliest open move."""
    from tuning.planning.weights_file import Policy

    policy = Policy(tuple(layers))
    return lambda inputs, free: evaluate.best_open(policy.scores(inputs), free)


def _keep(kept: Path, model: MaskablePPO, best: tuple[Layers, dict[str, float]]) -> None:
    kept.mkdir(parents=True, exist_ok=True)
    model.save(str(kept / "ppo.zip"))
    (kept / "ppo.steps").write_text(str(model.num_timesteps))
    layers = [(f"{kind}{k}", part) for k, layer in enumerate(best[0]) for kind, part in zip("wb", layer, strict=True)]
    arrays: dict[str, Any] = dict(layers)
    np.savez(kept / "ppo.best.npz", names=list(best[1]), figures=list(best[1].values()), **arrays)


def _best_of(kept: Path) -> tuple[Layers, dict[str, float]] | None:
    path = kept / "ppo.best.npz"
    if not path.exists():
        return None
    with np.load(path) as found:
        count: Sequence[int] = range(len([n for n in found.files if n.startswith("w")]))
        figures = dict(zip(found["names"].tolist(), found["figures"].tolist(), strict=True))
        return [(found[f"w{k}"], found[f"b{k}"]) for k in count], figures
