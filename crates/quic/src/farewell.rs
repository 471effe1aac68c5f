//! The last words of connections, kept so that they can be said again.
//!
//! QUIC says once that a connection is closed (CONNECTION_CLOSE), and again for each packet that still comes. After a burst of data that one
//! packet meets full queues; where it is lost and the other end has nothing to send, that end waits until its patience is over.
//! The same packet may be sent again (RFC 9000, section 10.2.1), and who has heard it answers, once, with a CLOSE of its own.
//!
//! What a packet says cannot be seen here. But once everything is being closed, the last packet of a connection is its farewell, and whatever
//! comes in and draws no other one was the answer.

use std::collections::HashMap;

use bowline::DeviceId;

use crate::config::CONNECTIONS;

/// Connection IDs of this crate are as long, and stand behind the first byte of a short header.
const CONNECTION_ID: usize = 8;
/// The first bit of a packet with a long header: of a handshake, which its other end will give up by itself.
const LONG_HEADER: u8 = 0x80;

type Id = [u8; CONNECTION_ID];

/// The last packet of each connection: at most as many as connections may come in.
#[derive(Debug, Default)]
pub(crate) struct Farewells(HashMap<(DeviceId, Id), Farewell>);

#[derive(Debug)]
struct Farewell {
    datagram: Vec<u8>,
    /// Something came after it.
    heard: bool,
}

impl Farewells {
    /// A single packet leaves.
    pub(crate) fn note_sent(&mut self, device: DeviceId, datagram: &[u8]) {
        let Some((first, rest)) = datagram.split_first() else { return };
        let Some(&id) = rest.first_chunk::<CONNECTION_ID>() else { return };
        if first & LONG_HEADER != 0 || self.0.len() >= CONNECTIONS && !self.0.contains_key(&(device, id)) {
            return;
        }
        self.0.insert((device, id), Farewell { datagram: datagram.to_vec(), heard: false });
    }

    /// Something came from a device: if it was no answer, another farewell follows.
    pub(crate) fn note_received(&mut self, device: DeviceId) {
        for (_, farewell) in self.0.iter_mut().filter(|((to, _), _)| *to == device) {
            farewell.heard = true;
        }
    }

    /// What has to be said again.
    pub(crate) fn unheard(&self) -> impl Iterator<Item = (DeviceId, &[u8])> {
        let unheard = self.0.iter().filter(|(_, farewell)| !farewell.heard);
        unheard.map(|((device, _), farewell)| (*device, &farewell.datagram[..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: DeviceId = DeviceId::from_bytes([1; 14]);
    const OTHER: DeviceId = DeviceId::from_bytes([2; 14]);

    fn packet(first: u8, id: u8) -> Vec<u8> {
        [&[first][..], &[id; 8], b"sealed"].concat()
    }

    #[test]
    fn the_last_packet_of_each_connection_is_repeated_until_something_comes() {
        let mut farewells = Farewells::default();
        farewells.note_sent(ONE, &packet(0x40, 1));
        farewells.note_sent(ONE, &packet(0x41, 1));
        farewells.note_sent(OTHER, &packet(0x40, 2));
        let mut unheard: Vec<_> = farewells.unheard().collect();
        unheard.sort();
        assert_eq!(unheard, [(ONE, &packet(0x41, 1)[..]), (OTHER, &packet(0x40, 2)[..])]);
        farewells.note_received(ONE);
        assert_eq!(farewells.unheard().count(), 1);
        // It was no answer, but a packet that crossed: another farewell went out.
        farewells.note_sent(ONE, &packet(0x42, 1));
        assert_eq!(farewells.unheard().count(), 2);
        farewells.note_received(ONE);
        farewells.note_received(OTHER);
        assert_eq!(farewells.unheard().count(), 0);
    }

    #[test]
    fn handshakes_and_scraps_are_not_kept_and_no_more_than_there_can_be_connections() {
        let mut farewells = Farewells::default();
        farewells.note_sent(ONE, &packet(0xc0, 1));
        farewells.note_sent(ONE, &[0x40; 8]);
        farewells.note_sent(ONE, &[]);
        assert_eq!(farewells.unheard().count(), 0);
        for number in 0..=CONNECTIONS as u64 {
            farewells.note_sent(ONE, &[&[0x40][..], &number.to_be_bytes()].concat());
        }
        assert_eq!(farewells.unheard().count(), CONNECTIONS);
    }
}
