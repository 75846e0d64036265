"""What the packets of an H.264 track in an MP4 or Matroska file say without being decoded.

The track's avcC record and packets in, small facts out. Finds the damage that shows in the sizes of the
units, which is most of what bad disks and transfers do, for microseconds a packet; what lies inside of
a unit only a decoder sees.
"""

from __future__ import annotations

from collections.abc import Iterator

_PICTURES, _WHOLE_PICTURE, _PARAMETERS = range(1, 6), 5, (7, 8)


class UnitReader:
    """Reads the units of packets as the track's record says they are stored."""

    def __init__(self, record: bytes) -> None:
        self._record = record
        self._length_bytes = (record[4] & 3) + 1

    @classmethod
    def of(cls, codec: str, record: bytes | None) -> UnitReader | None:
        """A reader for a track, none where its packets are stored in another way."""
        if codec != "h264" or record is None or len(record) < 7 or record[0] != 1:
            return None
        return cls(record)

    def is_damaged(self, packet: memoryview) -> bool:
        """Whether the units do not fill the packet, or one says it is none."""
        position, end, length_bytes = 0, len(packet), self._length_bytes
        while position + length_bytes < end:
            size = int.from_bytes(packet[position : position + length_bytes], "big")
            position += length_bytes
            if size and packet[position] & 0x80:
                return True
            position += size
        return position > end

    def begins_anew(self, packet: memoryview) -> bool:
        """Whether nothing before it is needed: its first picture forgets all that were before."""
        for unit in self._units(packet):
            if unit[0] & 31 in _PICTURES:
                return unit[0] & 31 == _WHOLE_PICTURE
        return False

    def changes_parameters(self, packet: memoryview) -> bool:
        """Whether it brings parameters that the record does not have; they would hold for the next clip too."""
        return any(unit[0] & 31 in _PARAMETERS and bytes(unit) not in self._record for unit in self._units(packet))

    def _units(self, packet: memoryview) -> Iterator[memoryview]:
        position = 0
        while position + self._length_bytes < len(packet):
            size = int.from_bytes(packet[position : position + self._length_bytes], "big")
            position += self._length_bytes
            if size:
                yield packet[position : position + size]
            position += size
