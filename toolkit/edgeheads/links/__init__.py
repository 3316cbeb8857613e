"""How files and commands reach a device: one class per kind of connection."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from edgeheads.errors import EdgeheadsError, unknown_name

if TYPE_CHECKING:
    from edgeheads.device import DeviceProfile
    from edgeheads.links.base import Link

__all__ = ["LINKS", "open_link"]

# A profile's `link` to where its class lives; imported when a profile asks for it.
LINKS = {
    "local": "edgeheads.links.local:LocalLink",
    "ssh": "edgeheads.links.ssh:SshLink",
    "adb": "edgeheads.links.adb:AdbLink",
}


def open_link(profile: DeviceProfile) -> Link:
    """Return the link that the profile names. Enter it (`with`) before use."""
    if profile.link == "none":
        raise EdgeheadsError(
            f"device {profile.name} is estimated, never reached; "
            f"run: edgeheads verify BUNDLE --device {profile.name}"
        )
    if profile.link not in LINKS:
        raise unknown_name("link", profile.link, LINKS)
    module, _, name = LINKS[profile.link].partition(":")
    link_class: type[Link] = getattr(import_module(module), name)
    return link_class.from_profile(profile)
