//! What leaves a host: messages by the way that its machine names, datagrams, and what is written to bases.

use bowline_proto::{
    DeviceId,
    host::{Hop, Path, Relay, Route, SendError, SocketId},
    wire::{peer, relay},
};
use bytes::Bytes;

use super::{DATA_QUEUE, Effect, HostNode, Received, split_frames};
use crate::stack::{Env, SockId};

/// Bytes of all kinds that may wait for one connection: what the machine has to say to its base is little.
const CONTROL_QUEUE: usize = 512 * 1024;

impl HostNode {
    /// Sends a message: hands it to the way that the machine names.
    ///
    /// # Errors
    /// The machine's.
    pub fn send(&mut self, to: DeviceId, data: &[u8], env: &mut Env<'_>) -> Result<Route, SendError> {
        let Some(machine) = self.machine.as_mut() else { return Err(SendError::Closed) };
        let route = machine.route(to, data.len(), env.instant());
        if let Ok(route) = route {
            match route {
                Route::Direct(hop) => match self.joined_header(to, hop, data) {
                    Some(header) => self.transmit(hop, [&header[..], data].concat().into(), env),
                    None => self.send_direct(hop, data, env),
                },
                Route::RelayUdp(hop) => match self.joined_relay_header(to, data, env) {
                    Some(header) => self.transmit(hop, [&header[..], data].concat().into(), env),
                    None => self.send_relay(Relay::Udp(hop), to, data, env),
                },
                Route::RelayTcp(conn) => self.send_relay(Relay::Tcp(conn), to, data, env),
                Route::Both(hop, relay) => {
                    self.send_direct(hop, data, env);
                    self.send_relay(relay, to, data, env);
                }
                Route::Local => self.effects.push(Effect::Received(Received {
                    from: to,
                    data: data.to_vec(),
                    path: Path::Local,
                })),
            }
        }
        self.drain(env);
        route
    }

    /// Every other message travels as messages that are joined do, where the lease allows it.
    fn joined_header(
        &mut self,
        to: DeviceId,
        hop: Hop,
        data: &[u8],
    ) -> Option<[u8; peer::JOINED_HEADER_LEN]> {
        let machine = self.machine.as_mut()?;
        let lease = machine.lease(to).filter(|lease| lease.hop == hop);
        // Nothing is kept of what was leased.
        while machine.poll_revoked().is_some() {}
        self.joins = !self.joins;
        let fits = lease?.joined.is_some_and(|length| peer::JOINED_HEADER_LEN + data.len() <= length);
        (self.joins && fits && !data.is_empty()).then(|| peer::joined_header(data.len() as u16))
    }

    /// The same through a base.
    fn joined_relay_header(
        &mut self,
        to: DeviceId,
        data: &[u8],
        env: &Env<'_>,
    ) -> Option<[u8; relay::JOINED_HEADER_LEN]> {
        let length = self.machine.as_ref()?.joined_relay(to, env.instant())?;
        self.joins = !self.joins;
        let fits = relay::JOINED_HEADER_LEN + data.len() <= length;
        (self.joins && fits && !data.is_empty()).then(|| relay::joined_header(to, data.len() as u16))
    }

    fn send_direct(&mut self, hop: Hop, data: &[u8], env: &mut Env<'_>) {
        let mut payload = Vec::with_capacity(data.len() + peer::PREFIX_LEN);
        if peer::needs_escape(data) {
            payload.extend_from_slice(&peer::escape_prefix());
        }
        payload.extend_from_slice(data);
        self.transmit(hop, payload.into(), env);
    }

    fn send_relay(&mut self, way: Relay, to: DeviceId, data: &[u8], env: &mut Env<'_>) {
        let mut payload = relay::header(relay::SEND_DATA, to).to_vec();
        payload.extend_from_slice(data);
        match way {
            Relay::Udp(hop) => self.transmit(hop, payload.into(), env),
            Relay::Tcp(conn) => {
                let Some(conn) = self.conns.get(&conn) else { return };
                if self.stack.backlog(conn.sock) > DATA_QUEUE {
                    self.machine.as_mut().map(|machine| machine.handle_relay_overflow(to, env.instant()));
                    return;
                }
                let mut framed = (payload.len() as u16).to_be_bytes().to_vec();
                framed.extend_from_slice(&payload);
                self.write(conn.sock, &framed, env);
            }
        }
    }

    pub(super) fn transmit(&mut self, hop: Hop, payload: Bytes, env: &mut Env<'_>) {
        if self.base_ips.contains(&hop.to.ip()) {
            self.to_bases += 1;
        } else if let Err(what) = self.watch.outgoing(hop.to, &payload, env.now) {
            self.effects.push(Effect::Violation(what));
        }
        let port = if hop.socket == SocketId::MAIN {
            Some(self.port)
        } else {
            self.sockets.get(&hop.socket).copied()
        };
        let Some(port) = port else {
            self.effects.push(Effect::Violation(format!("a datagram by {:?}, which is closed", hop.socket)));
            return;
        };
        if let Err(error) = self.stack.send_udp(hop.source, port, hop.to, payload, env) {
            self.machine.as_mut().map(|machine| machine.handle_send_error(hop, &error, env.instant()));
        }
    }

    pub(super) fn write(&mut self, sock: SockId, bytes: &[u8], env: &mut Env<'_>) {
        if let Some((_, remote)) = self.stack.ends(sock) {
            for frame in split_frames(bytes) {
                env.trace.frame(env.now, self.node, remote, false, frame);
            }
        }
        self.stack.write(sock, bytes, env);
        if self.stack.backlog(sock) > CONTROL_QUEUE {
            self.effects.push(Effect::Violation(format!("over {CONTROL_QUEUE} bytes wait for a base")));
        }
    }
}
