"""Adds participants to live contacts by way of the gateway."""

from callers.channel import Identity, aio_channel, channel
from callers.verdict import Action, Verdict, judge

__all__ = ["Action", "Identity", "Verdict", "aio_channel", "channel", "judge"]
