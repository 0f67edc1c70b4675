"""Actors that can be run, checked and simulated; the names for your own.

    class Echo(Actor):
        handles = {str: "echo"}

`actors.runtime` runs actors, `actors.model` makes a model of them for `machines.checker`, and `actors.simulation` takes them
through virtual days. `actors.voice` are this product's own; `actors.voice_lab` is their model and their simulation. A name is
imported when it is first used. All of them import `machines` and anyio, and nothing above.
"""

from typing import TYPE_CHECKING

from machines.facade import facade

if TYPE_CHECKING:
    from actors.model.actor_model import ActorModel, Scene
    from actors.model.lockstep import Diverged, Lockstep, state_machine
    from actors.model.parts import Answer, Choice, Connection, Faults, Outside, Part
    from actors.runtime.actor import (
        DEFER,
        IGNORE,
        Actor,
        ActorDeclarationError,
        Effect,
        Exited,
        Gone,
        HandlerMismatch,
        Out,
        Retry,
        Shutdown,
        Start,
        Timer,
        TimerError,
    )
    from actors.runtime.child_spec import ChildSpec, Restart, Strategy, Supervision
    from actors.runtime.mailbox import MailboxOverflow, MailRule, Ref
    from actors.runtime.static_supervisor import StaticSupervisor, SupervisionFailed
    from actors.runtime.system import ActorSystem, AskTimeout, DeadLetter, Port, SystemFailed, SystemStatistics, Token
    from actors.simulation.parts import PartPort, SimulatedPort
    from actors.simulation.plan import Chance, Fault, FaultKind, Plan
    from actors.simulation.runner import Claim, Day, Failure, PromiseBroken, Simulation
    from actors.simulation.world import Monitor, World

_HOMES = {
    "Actor": "runtime.actor",
    "ActorDeclarationError": "runtime.actor",
    "ActorModel": "model.actor_model",
    "ActorSystem": "runtime.system",
    "Answer": "model.parts",
    "AskTimeout": "runtime.system",
    "Chance": "simulation.plan",
    "ChildSpec": "runtime.child_spec",
    "Choice": "model.parts",
    "Claim": "simulation.runner",
    "Connection": "model.parts",
    "DEFER": "runtime.actor",
    "Day": "simulation.runner",
    "DeadLetter": "runtime.system",
    "Diverged": "model.lockstep",
    "Effect": "runtime.actor",
    "Exited": "runtime.actor",
    "Failure": "simulation.runner",
    "Fault": "simulation.plan",
    "FaultKind": "simulation.plan",
    "Faults": "model.parts",
    "Gone": "runtime.actor",
    "HandlerMismatch": "runtime.actor",
    "IGNORE": "runtime.actor",
    "Lockstep": "model.lockstep",
    "MailRule": "runtime.mailbox",
    "MailboxOverflow": "runtime.mailbox",
    "Monitor": "simulation.world",
    "Out": "runtime.actor",
    "Outside": "model.parts",
    "Part": "model.parts",
    "PartPort": "simulation.parts",
    "Plan": "simulation.plan",
    "Port": "runtime.system",
    "PromiseBroken": "simulation.runner",
    "Ref": "runtime.mailbox",
    "Restart": "runtime.child_spec",
    "Retry": "runtime.actor",
    "Scene": "model.actor_model",
    "Shutdown": "runtime.actor",
    "SimulatedPort": "simulation.parts",
    "Simulation": "simulation.runner",
    "Start": "runtime.actor",
    "StaticSupervisor": "runtime.static_supervisor",
    "Strategy": "runtime.child_spec",
    "Supervision": "runtime.child_spec",
    "SupervisionFailed": "runtime.static_supervisor",
    "SystemFailed": "runtime.system",
    "SystemStatistics": "runtime.system",
    "Timer": "runtime.actor",
    "TimerError": "runtime.actor",
    "Token": "runtime.system",
    "World": "simulation.world",
    "state_machine": "model.lockstep",
}

__all__ = [
    "DEFER",
    "IGNORE",
    "Actor",
    "ActorDeclarationError",
    "ActorModel",
    "ActorSystem",
    "Answer",
    "AskTimeout",
    "Chance",
    "ChildSpec",
    "Choice",
    "Claim",
    "Connection",
    "Day",
    "DeadLetter",
    "Diverged",
    "Effect",
    "Exited",
    "Failure",
    "Fault",
    "FaultKind",
    "Faults",
    "Gone",
    "HandlerMismatch",
    "Lockstep",
    "MailRule",
    "MailboxOverflow",
    "Monitor",
    "Out",
    "Outside",
    "Part",
    "PartPort",
    "Plan",
    "Port",
    "PromiseBroken",
    "Ref",
    "Restart",
    "Retry",
    "Scene",
    "Shutdown",
    "SimulatedPort",
    "Simulation",
    "Start",
    "StaticSupervisor",
    "Strategy",
    "Supervision",
    "SupervisionFailed",
    "SystemFailed",
    "SystemStatistics",
    "Timer",
    "TimerError",
    "Token",
    "World",
    "state_machine",
]

__getattr__, __dir__ = facade(__name__, _HOMES)
