//! Doing what the machine asks for.

use std::{
    io::{self, IoSlice},
    sync::Arc,
};

use bowline_proto::host::{CloseReason, ConnId, Hop, Output, SocketId};
use bytes::Bytes;

use super::{Driver, Input};
use crate::{
    Ecn,
    config::{DEFERRED_DATAGRAMS, OUTPUT_ROUNDS},
    resolve::resolve,
    tcp::{self, Outbox, Way},
};

impl Driver {
    /// Does what the machine asks for until it asks for nothing more, or its turn is over.
    pub(super) fn answer(&mut self) {
        let mut outputs = std::mem::take(&mut self.outputs);
        for _ in 0..OUTPUT_ROUNDS {
            self.deadline = self.shared.machine.outputs(&mut outputs);
            self.unfinished = !outputs.is_empty();
            if !self.unfinished {
                break;
            }
            outputs.drain(..).for_each(|output| self.execute(output));
        }
        self.outputs = outputs;
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::Transmit { socket, source, to, payload } => {
                self.transmit(Hop { socket, source, to }, payload);
            }
            Output::OpenSocket(id) => self.open(id),
            Output::CloseSocket(id) => {
                self.further.forget(id);
                self.shared.udp.close_further(id);
            }
            Output::RenewMapping => {
                if let Some(mapping) = &self.setup.mapping {
                    mapping.renew();
                }
            }
            Output::Announce { interface, payload } => {
                if let Err(error) = self.shared.udp.announce(interface, &payload) {
                    tracing::debug!(interface, "cannot announce: {error}");
                }
            }
            Output::Resolve { base, host, port } => {
                let reports = self.reports.clone();
                self.lookups.spawn(async move {
                    let result = resolve(&host, port).await;
                    // It fails when the driver has ended, which needs no answer.
                    let _ = reports.send(Input::Resolved { base, result }).await;
                });
            }
            Output::Connect { conn, source, to } => {
                let outbox = Arc::new(Outbox::default());
                self.shared.outboxes().insert(conn, Arc::clone(&outbox));
                let way = Way::of(source, to, &self.setup.network.interfaces.borrow());
                self.connections.spawn(tcp::run(conn, way, outbox, self.reports.clone()));
            }
            Output::Write { conn, frames } => self.write(conn, &frames),
            Output::Close { conn } => {
                if let Some(outbox) = self.shared.outboxes().remove(&conn) {
                    outbox.close();
                }
            }
            Output::Event(event) => self.shared.events.publish(event),
            // `Machine::outputs` ends with it and does not hand it out.
            Output::Timeout(_) => {}
        }
    }

    fn open(&mut self, id: SocketId) {
        match self.shared.udp.open_further(id) {
            Ok(socket) => self.further.watch(id, socket),
            Err(error) => {
                tracing::debug!("no further socket for guessing ports: {error}");
                self.shared.machine.drive(|host, now| host.handle_socket_failed(id, now));
            }
        }
    }

    fn write(&mut self, conn: ConnId, frames: &[u8]) {
        let Some(outbox) = self.shared.outbox(conn) else { return };
        if let Err(tcp::Refused::Full) = outbox.control(frames) {
            outbox.close();
            self.shared.outboxes().remove(&conn);
            let why = CloseReason::Lost("the base takes nothing more".to_owned());
            self.shared.machine.drive(|host, now| host.handle_closed(conn, why, now));
        }
    }

    fn transmit(&mut self, hop: Hop, payload: Bytes) {
        if self.deferred.is_empty() {
            match self.shared.udp.try_send(hop, &[IoSlice::new(&payload)], None, Ecn::NotEct) {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.shared.machine.drive(|host, now| host.handle_send_error(hop, &error, now));
                    return;
                }
            }
        }
        if self.deferred.len() < DEFERRED_DATAGRAMS {
            self.deferred.push_back((hop, payload));
        } else {
            tracing::debug!("a control datagram was dropped: the socket is full");
        }
    }

    pub(super) fn send_deferred(&mut self) {
        let mut waiting = std::mem::take(&mut self.deferred);
        while let Some((hop, payload)) = waiting.pop_front() {
            self.transmit(hop, payload);
            if !self.deferred.is_empty() {
                // Full again: the rest keeps its order behind it.
                self.deferred.append(&mut waiting);
            }
        }
    }
}
