//! What a worker decides about a datagram by the table: [`Reader::judge`] is the whole of it.
//!
//! What is not plain data to a device that is reached over UDP, and no NAT-INIT in which nothing is new, is the machine's: a worker hands
//! it on, cheapest check first.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{Leg, Pinned, Place, RemotePlace, Routes, Source, SourceKey, Way};
use crate::{
    base::{Over, SocketId, ToBase, Via, config::CONFIRM_RATE, location::Session},
    id::DeviceId,
    wire::{
        ANY_PATH_DATA, COOKIE_LEN, Cookie, addr,
        cluster::{self, BASE_DATA, BASE_PING, BASE_PONG, BaseData, PREFIX_LEN, PROBE_LEN, Probe},
        relay,
        udp::{
            MAP_CHECK, MAP_CHECK_LEN, NAT_CONFIRM, NAT_INIT, NAT_INIT_MIN_LEN, NAT_OK_LEN, NatConfirm, NatOk,
            UnverifiedNatInit,
        },
    },
};

/// What is to be done with a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A relayed message with its header rewritten: it goes there as it is.
    Forward {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
    },
    /// A relayed message with its header rewritten: it goes to another base, after these bytes.
    ToBase {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
        /// What goes before it.
        prefix: [u8; PREFIX_LEN],
    },
    /// A message that another base has sent: what comes after so many bytes goes there as it is.
    Deliver {
        /// From here.
        via: Via,
        /// To there.
        to: SocketAddr,
        /// Bytes that only concerned the bases.
        skip: usize,
    },
    /// A relayed message that does not go over UDP, or is too large: the machine knows what becomes of it.
    Data,
    /// A message of a device that has had relayed what it may: drop it. The machine tells it now and then.
    OverRate {
        /// The sender.
        from: DeviceId,
        /// For whom it was.
        to: DeviceId,
    },
    /// NAT-INIT with something new in it, or NAT-CONFIRM, under a cookie that is alive: for the machine, before all else.
    Handshake,
    /// A NAT-INIT with nothing new in it: what is left of it after so many bytes is its answer, which goes back the way it came.
    Answer {
        /// So many bytes at its front do not go back.
        skip: usize,
    },
    /// What nobody can be behind: no binding there, no such cookie. The machine may answer NAT-UNKNOWN, rarely.
    Stranger,
    /// NAT-CONFIRM under a cookie that is not alive, or what only a base of the cluster may send: drop it.
    Refused,
    /// No message of a host: drop it.
    Malformed,
}

/// The table as one batch of datagrams sees it.
#[derive(Debug)]
pub struct Reader<'a> {
    routes: &'a Routes,
    sources: Pinned<'a, SourceKey, Source>,
    places: Pinned<'a, DeviceId, Place>,
    remotes: Pinned<'a, DeviceId, RemotePlace>,
    bases: Pinned<'a, SocketAddr, ()>,
    cookies: Pinned<'a, Cookie, Arc<Session>>,
    last: Option<Last>,
}

/// The way of the last message: flows come in runs, and the next one is mostly of the same.
#[derive(Debug)]
struct Last {
    socket: SocketId,
    address: SocketAddr,
    to: DeviceId,
    now: Instant,
    from: DeviceId,
    leg: (Via, SocketAddr),
    /// To another base, after this.
    prefix: Option<[u8; PREFIX_LEN]>,
    /// The most data that the leg carries.
    limit: usize,
}

impl Last {
    fn is(&self, socket: SocketId, address: SocketAddr, to: DeviceId, length: usize, now: Instant) -> bool {
        self.to == to
            && self.address == address
            && self.socket == socket
            && self.now == now
            && length <= self.limit
    }
}

impl Routes {
    /// A view of the table for a batch of datagrams. Memory that was replaced meanwhile is given back when it is dropped.
    #[must_use]
    pub fn reader(&self) -> Reader<'_> {
        Reader {
            routes: self,
            sources: self.sources.pin(),
            places: self.places.pin(),
            remotes: self.remotes.pin(),
            bases: self.bases.pin(),
            cookies: self.cookies.pin(),
            last: None,
        }
    }
}

impl Reader<'_> {
    /// Decides about a datagram. A message that goes on has its header rewritten, an answer is written over what it answers; everything
    /// else is left as it came.
    pub fn judge(&mut self, via: Via, from: SocketAddr, datagram: &mut [u8], now: Instant) -> Verdict {
        if from.port() == 0 {
            // No answer can go there, and no message.
            return Verdict::Malformed;
        }
        match (datagram.first(), datagram.len()) {
            (Some(&kind), _) if relay::is_sent(kind) => self.judge_data(via, from, datagram, now),
            (Some(&NAT_INIT), NAT_INIT_MIN_LEN..) => self.judge_nat_init(via, from, datagram, now),
            (Some(&NAT_CONFIRM), NAT_OK_LEN) if self.may_confirm(via, from, datagram, now) => {
                Verdict::Handshake
            }
            (Some(&NAT_CONFIRM), NAT_OK_LEN) => Verdict::Refused,
            (Some(&MAP_CHECK), MAP_CHECK_LEN) if self.knows_cookie_of(datagram) => Verdict::Handshake,
            (Some(&MAP_CHECK), MAP_CHECK_LEN) => Verdict::Refused,
            (Some(&BASE_DATA), _) => self.judge_base_data(from, datagram, now),
            (Some(&(BASE_PING | BASE_PONG)), PROBE_LEN) if self.routes.base_key.is_some() => {
                self.judge_probe(from, datagram)
            }
            _ => Verdict::Malformed,
        }
    }

    fn knows_cookie_of(&self, datagram: &[u8]) -> bool {
        self.session_of(datagram).is_some()
    }

    /// Whether it confirms an address of a device at all, and the device has not just done so again and again.
    fn may_confirm(&self, via: Via, from: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let (Some(session), Ok(confirm)) = (self.session_of(datagram), NatConfirm::decode(datagram)) else {
            return false;
        };
        let mut location = session.location();
        let challenge = |index| self.routes.challenge(&confirm.cookie, index, addr::canonical(from));
        location.index_of(via.socket).is_some_and(|index| challenge(index) == confirm.challenge)
            && location.confirms.take(CONFIRM_RATE, now)
    }

    fn session_of(&self, datagram: &[u8]) -> Option<&Session> {
        let cookie = datagram[1..].first_chunk::<COOKIE_LEN>()?;
        self.cookies.get(cookie).map(|session| &**session)
    }

    fn judge_nat_init(&self, via: Via, from: SocketAddr, datagram: &mut [u8], now: Instant) -> Verdict {
        let Some(session) = self.session_of(datagram) else { return Verdict::Stranger };
        let (length, from) = (datagram.len(), addr::canonical(from));
        let answer = UnverifiedNatInit::decode(datagram).ok().and_then(|init| {
            let init = (init.claim(), length);
            self.routes.renew_by(&self.places, session, (via.socket, from), init, now)
        });
        let Some(ok) = answer else { return Verdict::Handshake };
        let skip = length - NatOk::length_for(length);
        ok.write(&mut datagram[skip..]);
        Verdict::Answer { skip }
    }

    fn judge_data(&mut self, via: Via, from: SocketAddr, message: &mut [u8], now: Instant) -> Verdict {
        let Ok((to, data)) = relay::split(message) else { return Verdict::Malformed };
        let length = data.len();
        if let Some(last) = &self.last
            && last.is(via.socket, from, to, length, now)
        {
            let (via, to) = last.leg;
            return forward(message, last.from, via, to, last.prefix);
        }
        let key = SourceKey::new(via.socket, addr::canonical(from));
        let Some(source) = self.sources.get(&key) else { return Verdict::Stranger };
        source.heard.store(self.routes.nanos(now), Ordering::Relaxed);
        let pair = (source.device, to);
        let way = self.routes.way_by(&self.places, &self.remotes, source.session.budget(), pair, length, now);
        let (leg, limit, prefix) = match way {
            Way::Udp { via, to, limit } => ((via, to), limit, None),
            Way::Base(ToBase { prefix, over: Over::Udp { via, to } }) => {
                ((via, to), ANY_PATH_DATA, Some(prefix))
            }
            Way::OverRate => return Verdict::OverRate { from: source.device, to },
            Way::Base(_) | Way::TooLarge | Way::Elsewhere => return Verdict::Data,
        };
        let device = source.device;
        if self.routes.rates.is_none() {
            let socket = via.socket;
            self.last = Some(Last { socket, address: from, to, now, from: device, leg, prefix, limit });
        }
        forward(message, device, leg.0, leg.1, prefix)
    }

    /// A message that another base has sent: to a device that is reached over UDP here.
    fn judge_base_data(&self, from: SocketAddr, datagram: &[u8], now: Instant) -> Verdict {
        let Some(key) = &self.routes.base_key else { return Verdict::Malformed };
        let Ok(data) = BaseData::decode(datagram) else { return Verdict::Malformed };
        if !self.bases.contains_key(&addr::canonical(from))
            || data.tag != cluster::tag(key, data.from, data.to)
        {
            return Verdict::Refused;
        }
        let now = self.routes.nanos(now);
        let fresh = |leg: &&Leg| leg.until.load(Ordering::Relaxed) > now && data.length <= leg.limit();
        match self.places.get(&data.to).and_then(|place| place.leg.as_ref()).filter(fresh) {
            Some(leg) => Verdict::Deliver { via: leg.via, to: leg.to, skip: PREFIX_LEN },
            None => Verdict::Data,
        }
    }

    /// BASE-PING and BASE-PONG are for the machine, if a base has sent them.
    fn judge_probe(&self, from: SocketAddr, datagram: &[u8]) -> Verdict {
        let is_ours = |key| Probe::decode(datagram, key).is_some();
        let known = self.bases.contains_key(&addr::canonical(from));
        if known && self.routes.base_key.as_ref().is_some_and(is_ours) {
            Verdict::Handshake
        } else {
            Verdict::Refused
        }
    }
}

fn forward(
    message: &mut [u8],
    from: DeviceId,
    via: Via,
    to: SocketAddr,
    prefix: Option<[u8; PREFIX_LEN]>,
) -> Verdict {
    match (relay::rewrite(message, from), prefix) {
        (Ok(()), None) => Verdict::Forward { via, to },
        (Ok(()), Some(prefix)) => Verdict::ToBase { via, to, prefix },
        (Err(_), _) => Verdict::Malformed,
    }
}
