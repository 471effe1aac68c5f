//! The base server's state machine.
//!
//! A shell owns the sockets and this machine. It hands in connections, frames and datagrams, sends on what
//! [`Forward`] says it should with the bytes that it still holds, and then drains [`Base::poll_output`] until it
//! answers with a timeout.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{id::DeviceId, wire::Malformed};

/// A TCP connection of the shell; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// A UDP socket of the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u16);

/// One end of a UDP exchange on the base's side: the socket, and the address on it where that is known. Replies
/// leave from the address and port that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Via {
    /// The socket.
    pub socket: SocketId,
    /// The local IP a datagram was sent to; `None` lets the system choose.
    pub ip: Option<IpAddr>,
}

/// A UDP address as REGISTERED tells it to a host, and the socket behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpAddress {
    /// `::` with a port, or an address that the operator advertises.
    pub address: SocketAddr,
    /// The socket that receives what is sent there.
    pub socket: SocketId,
}

/// Where a relayed message goes. Its header has been rewritten in place (SEND-DATA to RECV-DATA), so the shell
/// sends the very bytes it handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Nowhere: it was no data, or it was dropped (and counted).
    Nowhere,
    /// As one datagram.
    Udp {
        /// From here.
        via: Via,
        /// To the destination's confirmed address.
        to: SocketAddr,
    },
    /// As one frame (the shell puts the length before it), into the bounded data queue of this connection. When that
    /// queue is full the shell drops the message and calls [`Base::handle_overflow`] with the ticket.
    Tcp {
        /// To this connection.
        conn: ConnId,
        /// Who is to be told when it is dropped.
        ticket: Ticket,
    },
}

/// Whose message to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// The sender.
    pub from: DeviceId,
    /// The destination.
    pub to: DeviceId,
}

/// What the shell has to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram.
    Transmit {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
        /// These bytes.
        payload: Vec<u8>,
    },
    /// Append control frames (lengths included) to a connection's queue. They are never dropped: a connection whose
    /// queue would pass the shell's bound is closed instead.
    Write {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        frames: Vec<u8>,
    },
    /// Close a connection once what was written before has been sent (or the shell's patience ends). The machine
    /// has forgotten it already; the shell need not call [`Base::handle_closed`].
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Nothing more to do before this moment (or, with `None`, before the next input).
    Timeout(Option<Instant>),
}

/// The base server.
#[derive(Debug)]
pub struct Base {}

/// Limits and timers of a base. The defaults serve a small server; an operator changes them in the config file.
#[derive(Debug, Clone, Default)]
pub struct BaseConfig {}

impl Base {
    /// A base with this ID. `seed` is the source of all its randomness (cookies, challenges).
    #[must_use]
    pub fn new(config: BaseConfig, id: DeviceId, seed: [u8; 32], now: Instant) -> Self {
        let _ = (config, id, seed, now);
        todo!()
    }
    /// A TCP connection was accepted. `udp` is the list that REGISTERED will tell this host (four at most).
    pub fn handle_accepted(&mut self, conn: ConnId, remote: SocketAddr, udp: &[UdpAddress], now: Instant) {
        let _ = (conn, remote, udp, now);
        todo!()
    }
    /// A whole frame (type and body) came in.
    pub fn handle_frame(&mut self, conn: ConnId, frame: &mut [u8], now: Instant) -> Forward {
        let _ = (conn, frame, now);
        todo!()
    }
    /// A connection's framing is lost.
    pub fn handle_malformed(&mut self, conn: ConnId, why: Malformed, now: Instant) {
        let _ = (conn, why, now);
        todo!()
    }
    /// A connection ended by itself.
    pub fn handle_closed(&mut self, conn: ConnId, now: Instant) {
        let _ = (conn, now);
        todo!()
    }
    /// A datagram came in.
    pub fn handle_datagram(
        &mut self,
        via: Via,
        from: SocketAddr,
        datagram: &mut [u8],
        now: Instant,
    ) -> Forward {
        let _ = (via, from, datagram, now);
        todo!()
    }
    /// The shell dropped a message because the queue of its destination was full.
    pub fn handle_overflow(&mut self, ticket: Ticket, now: Instant) {
        let _ = (ticket, now);
        todo!()
    }
    /// The moment of the last [`Output::Timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let _ = now;
        todo!()
    }
    /// Tells every host to leave within `seconds`, and new ones to go elsewhere. With 0: at once (ERROR 7 to all).
    pub fn drain(&mut self, seconds: u16, now: Instant) {
        let _ = (seconds, now);
        todo!()
    }
    /// What the shell has to do next.
    pub fn poll_output(&mut self, now: Instant) -> Output {
        let _ = now;
        todo!()
    }
}
