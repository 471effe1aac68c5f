//! The packet diagram: who sent what to whom, when, and what became of it.
//!
//! Lines are kept raw and bounded; decoding and formatting happen only when somebody reads them. Decoding here is for
//! people: it takes the bytes as they are and checks nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};

use bowline_proto::wire::{
    peer::{self, PeerDatagram},
    relay,
    tcp::{BaseFrame, HostFrame},
    udp::{self, BaseDatagram, NatConfirm, UnverifiedNatInit},
};
use bytes::Bytes;

use crate::packet::{NodeId, Time};

/// Lines kept; the oldest go.
const MAX_LINES: usize = 20_000;

/// What became of a packet.
#[derive(Debug, Clone, Copy)]
pub enum Fate {
    /// It reached this node.
    Arrived(NodeId),
    /// It ended on the way: why, and its destination there.
    Dropped(&'static str, SocketAddr),
}

#[derive(Debug)]
enum What {
    Datagram { src: SocketAddr, dst: SocketAddr, payload: Bytes, fates: Vec<(Time, Fate)> },
    Frame { to: SocketAddr, from_base: bool, frame: Bytes },
    Note(String),
}

#[derive(Debug)]
struct Line {
    at: Time,
    node: Option<NodeId>,
    what: What,
}

/// The diagram of a run.
#[derive(Debug, Default)]
pub struct Trace {
    lines: VecDeque<Line>,
    first: u64,
    names: BTreeMap<usize, String>,
    addresses: BTreeMap<IpAddr, String>,
}

impl Trace {
    /// Gives a node its name.
    pub fn name(&mut self, node: NodeId, name: &str) {
        self.names.insert(node.0, name.to_owned());
    }

    /// Says whose an address is.
    pub fn address(&mut self, ip: IpAddr, name: &str) {
        self.addresses.insert(ip, name.to_owned());
    }

    /// A node sends a datagram; the answer names the line for [`Self::fate`].
    pub fn datagram(
        &mut self,
        at: Time,
        node: Option<NodeId>,
        src: SocketAddr,
        dst: SocketAddr,
        payload: &Bytes,
    ) -> u64 {
        self.push(Line {
            at,
            node,
            what: What::Datagram { src, dst, payload: payload.clone(), fates: Vec::new() },
        })
    }

    /// A node writes a frame to a TCP connection.
    pub fn frame(&mut self, at: Time, node: NodeId, to: SocketAddr, from_base: bool, frame: &[u8]) {
        let frame = Bytes::copy_from_slice(&frame[..frame.len().min(256)]);
        self.push(Line { at, node: Some(node), what: What::Frame { to, from_base, frame } });
    }

    /// Something happened that is no packet.
    pub fn note(&mut self, at: Time, node: Option<NodeId>, text: impl Into<String>) {
        self.push(Line { at, node, what: What::Note(text.into()) });
    }

    /// What became of a datagram.
    pub fn fate(&mut self, line: u64, at: Time, fate: Fate) {
        let Some(index) = line.checked_sub(self.first) else { return };
        if let Some(Line { what: What::Datagram { fates, .. }, .. }) = self.lines.get_mut(index as usize) {
            fates.push((at, fate));
        }
    }

    /// What a node sent over UDP since a moment: when, where to, what, and whether it reached a node.
    pub fn datagrams(
        &self,
        node: NodeId,
        since: Time,
    ) -> impl Iterator<Item = (Time, SocketAddr, &Bytes, bool)> {
        self.lines.iter().filter(move |line| line.node == Some(node) && line.at >= since).filter_map(|line| {
            let What::Datagram { dst, payload, fates, .. } = &line.what else { return None };
            let arrived = fates.iter().any(|(_, fate)| matches!(fate, Fate::Arrived(_)));
            Some((line.at, *dst, payload, arrived))
        })
    }

    /// The frames a node wrote since a moment: when, to which address, and (at most 256 bytes of) each.
    pub fn frames(&self, node: NodeId, since: Time) -> impl Iterator<Item = (Time, SocketAddr, &Bytes)> {
        self.lines.iter().filter(move |line| line.node == Some(node) && line.at >= since).filter_map(|line| {
            let What::Frame { to, frame, .. } = &line.what else { return None };
            Some((line.at, *to, frame))
        })
    }

    /// The line number of packets that have no line of their own.
    pub const NO_LINE: u64 = u64::MAX;

    fn push(&mut self, line: Line) -> u64 {
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
            self.first += 1;
        }
        self.lines.push_back(line);
        self.first + self.lines.len() as u64 - 1
    }

    /// The diagram of the lines from one moment to another.
    #[must_use]
    pub fn diagram(&self, from: Time, to: Time) -> String {
        let mut out = String::new();
        for line in self.lines.iter().filter(|line| line.at >= from && line.at <= to) {
            self.write(line, &mut out);
        }
        out
    }

    fn write(&self, line: &Line, out: &mut String) {
        let node = line.node.map_or_else(|| "-".to_owned(), |node| self.node(node));
        let at = line.at.as_secs_f64();
        // Writing to a String cannot fail.
        let _ = match &line.what {
            What::Note(text) => writeln!(out, "{at:12.6}  {node:<8} * {text}"),
            What::Frame { to, from_base, frame } => {
                let text = if *from_base { base_frame(frame) } else { host_frame(frame) };
                writeln!(out, "{at:12.6}  {node:<8} = {:<24} tcp {text}", self.addressed(*to))
            }
            What::Datagram { src, dst, payload, fates } => {
                let text = datagram(payload);
                let _ = write!(
                    out,
                    "{at:12.6}  {node:<8} > {:<24} udp {text}  [from {src}]",
                    self.addressed(*dst)
                );
                for (when, fate) in fates {
                    let after = (when.saturating_sub(line.at)).as_secs_f64() * 1e3;
                    let _ = match fate {
                        Fate::Arrived(node) => write!(out, "  -> {} +{after:.1}ms", self.node(*node)),
                        Fate::Dropped(why, place) => write!(out, "  xx {why} ({place})"),
                    };
                }
                writeln!(out)
            }
        };
    }

    fn node(&self, node: NodeId) -> String {
        self.names.get(&node.0).cloned().unwrap_or_else(|| format!("node{}", node.0))
    }

    fn addressed(&self, address: SocketAddr) -> String {
        match self.addresses.get(&address.ip()) {
            Some(name) => format!("{name}:{} ({})", address.port(), address.ip()),
            None => address.to_string(),
        }
    }
}

/// How many bytes of a datagram say what control message it is; `None` for data.
#[must_use]
pub fn control_prefix(payload: &[u8]) -> Option<usize> {
    if payload.starts_with(&peer::MAGIC) {
        let data = [Some(&peer::ESCAPED_DATA), Some(&peer::JOINED_DATA)];
        return (!data.contains(&payload.get(peer::MAGIC.len()))).then_some(peer::PREFIX_LEN);
    }
    matches!(payload.first(), Some(udp::NAT_INIT..=udp::NAT_UNKNOWN)).then_some(1)
}

/// The name of a datagram's message and its key fields.
#[must_use]
pub fn datagram(payload: &[u8]) -> String {
    let length = payload.len();
    match payload.first() {
        Some(&udp::NAT_INIT) => match UnverifiedNatInit::decode(payload) {
            Ok(m) => {
                let claim = m.claim();
                format!("NAT-INIT seq {} own {:?} ({length} B)", claim.seq, claim.own)
            }
            Err(e) => format!("NAT-INIT malformed: {e}"),
        },
        Some(&udp::NAT_CONFIRM) => match NatConfirm::decode(payload) {
            Ok(m) => format!("NAT-CONFIRM seq {}", m.seq),
            Err(e) => format!("NAT-CONFIRM malformed: {e}"),
        },
        Some(&relay::SEND_DATA) => match relay::split(payload) {
            Ok((to, data)) => format!("SEND-DATA to {} ({} B)", short(to), data.len()),
            Err(e) => format!("SEND-DATA malformed: {e}"),
        },
        Some(&relay::SEND_JOINED) => match relay::split(payload) {
            Ok((to, body)) => format!("SEND-JOINED to {} ({} B)", short(to), body.len()),
            Err(e) => format!("SEND-JOINED malformed: {e}"),
        },
        Some(&(udp::NAT_OK | udp::NAT_UNKNOWN | udp::MAP_OK | relay::RECV_DATA | relay::RECV_JOINED)) => {
            match BaseDatagram::decode(payload) {
                Ok(BaseDatagram::NatOk(m)) => {
                    let confirmed = if m.confirmed { " confirmed" } else { "" };
                    format!("NAT-OK seq {} seen {}{confirmed} ({length} B)", m.seq, m.seen)
                }
                Ok(BaseDatagram::MapOk(_)) => "MAP-OK".to_owned(),
                Ok(BaseDatagram::NatUnknown) => "NAT-UNKNOWN".to_owned(),
                Ok(BaseDatagram::RecvData(from, data)) => {
                    format!("RECV-DATA from {} ({} B)", short(from), data.len())
                }
                Ok(BaseDatagram::RecvJoined(from, body)) => {
                    format!("RECV-JOINED from {} ({} B)", short(from), body.len())
                }
                Err(e) => format!("base datagram malformed: {e}"),
            }
        }
        _ => peer_datagram(payload),
    }
}

fn peer_datagram(payload: &[u8]) -> String {
    let length = payload.len();
    match PeerDatagram::decode(payload) {
        Ok(PeerDatagram::Data(data)) => format!("DATA ({} B)", data.len()),
        Ok(PeerDatagram::Joined { size, data }) => format!("JOINED-DATA ({} B by {size})", data.len()),
        Ok(PeerDatagram::Hello(hello)) => {
            let claim = hello.claim();
            format!(
                "HELLO {} to {} token {} ({length} B)",
                short(claim.initiator),
                short(claim.responder),
                token(&claim.token)
            )
        }
        Ok(PeerDatagram::HelloReply(reply)) => {
            let claim = reply.claim();
            format!("HELLO-REPLY {} token {}", short(claim.responder), token(&claim.token))
        }
        Ok(PeerDatagram::UnknownSource) => "UNKNOWN-SOURCE".to_owned(),
        Ok(PeerDatagram::Knock) => "KNOCK".to_owned(),
        Err(e) => format!("malformed: {e} ({length} B)"),
    }
}

fn host_frame(frame: &[u8]) -> String {
    match HostFrame::decode(frame) {
        Ok(HostFrame::GetCookie(_)) => "GET-COOKIE".to_owned(),
        Ok(HostFrame::Register(m)) => {
            let claim = m.claim();
            format!("REGISTER {} attempt {}", short(claim.device), claim.attempt)
        }
        Ok(HostFrame::Info(m)) => format!("INFO {} own {:?}", m.number, m.own),
        Ok(HostFrame::RequestInfo(id)) => format!("REQUEST-INFO {}", short(id)),
        Ok(HostFrame::ReleaseInfo(id)) => format!("RELEASE-INFO {}", short(id)),
        Ok(HostFrame::Leave) => "LEAVE".to_owned(),
        Ok(HostFrame::SendData(to, _)) => format!("SEND-DATA to {}", short(to)),
        Ok(HostFrame::SendJoined(to, _)) => format!("SEND-JOINED to {}", short(to)),
        Ok(HostFrame::Unknown(kind)) => format!("unknown type {kind:#04x}"),
        Err(e) => format!("malformed: {e}"),
    }
}

fn base_frame(frame: &[u8]) -> String {
    match BaseFrame::decode(frame) {
        Ok(BaseFrame::BaseHello(m)) => format!("BASE-HELLO {}", short(m.base)),
        Ok(BaseFrame::Registered(m)) => format!("REGISTERED seen {} udp {:?}", m.seen, m.udp),
        Ok(BaseFrame::Error(m)) => format!("ERROR {:?} retry after {}: {}", m.code, m.retry_after, m.text),
        Ok(BaseFrame::Pong(number)) => format!("PONG {number}"),
        Ok(BaseFrame::DeviceAddresses(m)) => {
            let online = if m.online { "online" } else { "gone" };
            format!(
                "DEVICE-ADDRESSES {} {online} reflexive {:?} own {:?}",
                short(m.device),
                m.reflexive,
                m.own
            )
        }
        Ok(BaseFrame::Unreachable(id, reason)) => format!("UNREACHABLE {} {reason:?}", short(id)),
        Ok(BaseFrame::GoAway(seconds)) => format!("GOAWAY {seconds}"),
        Ok(BaseFrame::Wanted(id)) => format!("WANTED {}", short(id)),
        Ok(BaseFrame::Notice(m)) => format!("NOTICE {:?}: {}", m.code, m.text),
        Ok(BaseFrame::RecvData(from, _)) => format!("RECV-DATA from {}", short(from)),
        Ok(BaseFrame::RecvJoined(from, _)) => format!("RECV-JOINED from {}", short(from)),
        Ok(BaseFrame::Unknown(kind)) => format!("unknown type {kind:#04x}"),
        Err(e) => format!("malformed: {e}"),
    }
}

/// The first group of an ID: enough to tell the few devices of a world apart.
#[must_use]
pub fn short(id: bowline_proto::DeviceId) -> String {
    id.to_string()[..4].to_owned()
}

fn token(token: &[u8]) -> String {
    token[..3].iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
