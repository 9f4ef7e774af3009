"""Links by name: figures that somebody published or measured, as they would be written in a scenario.

A preset is a starting point: keys that stand beside `preset` win. Where a source has a round-trip time, either way gets
half of it. None of the sources gives packet loss or jitter, so no preset has them; add your own.

How far a name's figures are from any one network, logs tell. Mean rates down, as `fedemu.links.traces` reads them, are
1.0 Mbit/s for HSDPA on Norwegian commutes (86 logs), 30.2 Mbit/s for LTE in Ghent (40 logs), and in Ireland with a 5G
phone 71.7 Mbit/s standing still and 29.7 Mbit/s in a car (5 and 16 logs of downloads; it is on LTE at times).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class Preset(NamedTuple):
    """A link and where its figures are from."""

    link: Mapping[str, Any]
    """Keys of a link, with units."""
    source: str


def _link(delay: str, up: str, down: str, **others: Any) -> Mapping[str, Any]:
    return MappingProxyType({"delay": delay, "up": {"rate": up}, "down": {"rate": down}, **others})


_WEBPAGETEST = "WebPageTest, www/settings/connectivity.ini.sample"

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "edge": Preset(
            _link("420ms", "200kbit/s", "240kbit/s"), f"{_WEBPAGETEST}: Mobile Edge, 240/200 kbit/s, RTT 840 ms"
        ),
        "3g": Preset(
            _link("150ms", "768kbit/s", "1.6Mbit/s"), f"{_WEBPAGETEST}: Mobile 3G, 1.6 Mbit/s/768 kbit/s, RTT 300 ms"
        ),
        "4g": Preset(
            _link("85ms", "9Mbit/s", "9Mbit/s"), "WebPageTest's 4G and sitespeed.io's throttle: 9/9 Mbit/s, RTT 170 ms"
        ),
        "5g": Preset(
            _link("34.5ms", "21.08Mbit/s", "166.13Mbit/s"),
            "Ookla, Growing and Slowing: The State of 5G Worldwide in 2021: global medians, Q3 2021; RTT 69 ms: median "
            "PINGAVG on 5G in the static downloads of Raca et al., Beyond Throughput, The Next Generation, MMSys 2020",
        ),
        "wifi": Preset(
            _link("1ms", "15Mbit/s", "30Mbit/s"),
            "Firefox DevTools, Network Monitor, Throttling: Wi-Fi, 30/15 Mbit/s, latency 2 ms",
        ),
        "cable": Preset(_link("14ms", "1Mbit/s", "5Mbit/s"), f"{_WEBPAGETEST}: Cable, 5/1 Mbit/s, RTT 28 ms"),
        "satellite": Preset(
            _link("314.5ms", "2.96Mbit/s", "18.75Mbit/s"),
            "geostationary: Viasat's medians in the USA, Q3 2021, Ookla: 18.75/2.96 Mbit/s, RTT 629 ms",
        ),
        "lora": Preset(
            MappingProxyType(
                {
                    "up": {"rate": "5.46875kbit/s"},
                    "down": {"delay": "1s", "rate": "5.46875kbit/s"},
                    "tcp": "none",
                }
            ),
            "Semtech SX1276 data sheet: SF x bandwidth / 2^SF x coding rate with SF 7, 125 kHz, 4/5 (LoRaWAN's DR5 in "
            "EU868); down waits LoRaWAN's RECEIVE_DELAY1 of 1 s; without the duty cycle of 1 % that EU868 allows",
        ),
    }
)
"""By name."""


def preset(name: str) -> Mapping[str, Any]:
    """Return the link of that name.

    Raises:
        LookupError: there is none; says what there is.
    """
    if name not in PRESETS:
        raise LookupError(f"{name!r} is not a preset; there are {', '.join(PRESETS)}")
    return PRESETS[name].link
