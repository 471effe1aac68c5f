//! What `bowline watch` shows of a peer, and why: as text for people, as JSON for programs, and as the facts whose
//! change is worth telling. Pure: a status and a moment go in, text comes out.
//!
//! Round trips and ages change all the time; they are shown, but they are no facts.

use std::{
    fmt::Write,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use bowline::{BaseStatus, BindingStatus, DeviceId, PairStatus, Path, PeerStatus, Status};
use serde::Serialize;

use crate::output::{self, STRONG, WEAK, age, json_millis, millis, paint};

/// What is known of a peer at a moment.
#[derive(Debug, Clone)]
pub(crate) struct View {
    device: DeviceId,
    status: Status,
    now: Instant,
}

/// The part of a view whose change is an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    base: Option<BaseFacts>,
    why_no_base: Option<String>,
    own: Vec<SocketAddr>,
    mapped: Option<SocketAddr>,
    peer: Option<PeerFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BaseFacts {
    id: DeviceId,
    remote: SocketAddr,
    /// Per UDP address: the reflexive address seen there, and whether it is the one in use.
    udp: Vec<(SocketAddr, Option<SocketAddr>, bool)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct PeerFacts {
    path: Path,
    why: String,
    online: Option<bool>,
    /// Per pair: whether it ever answered, and what the system says of it.
    pairs: Vec<(Option<IpAddr>, SocketAddr, bool, Option<String>)>,
}

#[derive(Serialize)]
struct Json {
    device: String,
    base: Option<JsonBase>,
    why_no_base: Option<String>,
    own: Vec<SocketAddr>,
    /// The port that a router has mapped for this device, once the base has reached it there.
    mapped: Option<SocketAddr>,
    peer: Option<JsonPeer>,
}

#[derive(Serialize)]
struct JsonBase {
    name: String,
    id: String,
    remote: SocketAddr,
    seen: SocketAddr,
    for_ms: f64,
    rtt_ms: Option<f64>,
    udp: Vec<JsonBinding>,
}

#[derive(Serialize)]
struct JsonBinding {
    address: SocketAddr,
    reflexive: Option<SocketAddr>,
    confirmed: bool,
    full_size: bool,
    answered_ms_ago: Option<f64>,
    rtt_ms: Option<f64>,
}

#[derive(Serialize)]
struct JsonPeer {
    path: &'static str,
    address: Option<SocketAddr>,
    why: String,
    for_ms: f64,
    rtt_ms: Option<f64>,
    max_datagram: usize,
    online: Option<bool>,
    pairs: Vec<JsonPair>,
}

#[derive(Serialize)]
struct JsonPair {
    local: Option<IpAddr>,
    remote: SocketAddr,
    source: String,
    sent: u64,
    answered: u64,
    last_sent_ms_ago: Option<f64>,
    last_answer_ms_ago: Option<f64>,
    rtt_ms: Option<f64>,
    next_ms: Option<f64>,
    error: Option<String>,
}

impl View {
    pub(crate) const fn new(device: DeviceId, status: Status, now: Instant) -> Self {
        Self { device, status, now }
    }

    fn peer(&self) -> Option<&PeerStatus> {
        self.status.peers.iter().find(|peer| peer.id == self.device)
    }

    /// The way messages take now.
    pub(crate) fn path(&self) -> Path {
        self.peer().map_or(Path::None, |peer| peer.path)
    }

    /// Why there is no base, while there is none.
    pub(crate) fn why_no_base(&self) -> Option<&str> {
        self.status.why_no_base.as_deref()
    }

    /// What has to change for this view to be shown again.
    pub(crate) fn facts(&self) -> Facts {
        let binding = |b: &BindingStatus| (b.address, b.reflexive, b.confirmed);
        let pair = |p: &PairStatus| (p.local, p.remote, p.answered > 0, p.error.clone());
        Facts {
            base: self.status.base.as_ref().map(|b| BaseFacts {
                id: b.id,
                remote: b.remote,
                udp: b.udp.iter().map(binding).collect(),
            }),
            why_no_base: self.status.why_no_base.clone(),
            own: self.status.own.clone(),
            mapped: self.status.mapped,
            peer: self.peer().map(|p| PeerFacts {
                path: p.path,
                why: p.why.clone(),
                online: p.online,
                pairs: p.pairs.iter().map(pair).collect(),
            }),
        }
    }

    fn ago(&self, moment: Instant) -> std::time::Duration {
        self.now.saturating_duration_since(moment)
    }

    /// For programs.
    pub(crate) fn json(&self) -> impl Serialize {
        let ms_ago = |moment: Option<Instant>| moment.map(|moment| json_millis(self.ago(moment)));
        Json {
            device: self.device.to_string(),
            base: self.status.base.as_ref().map(|base| JsonBase {
                name: base.name.clone(),
                id: base.id.to_string(),
                remote: base.remote,
                seen: base.seen,
                for_ms: json_millis(self.ago(base.since)),
                rtt_ms: base.rtt.map(json_millis),
                udp: base
                    .udp
                    .iter()
                    .map(|binding| JsonBinding {
                        address: binding.address,
                        reflexive: binding.reflexive,
                        confirmed: binding.confirmed,
                        full_size: binding.full_size,
                        answered_ms_ago: ms_ago(binding.answered),
                        rtt_ms: binding.rtt.map(json_millis),
                    })
                    .collect(),
            }),
            why_no_base: self.status.why_no_base.clone(),
            own: self.status.own.clone(),
            mapped: self.status.mapped,
            peer: self.peer().map(|peer| JsonPeer {
                path: output::path_name(peer.path),
                address: output::path_address(peer.path),
                why: peer.why.clone(),
                for_ms: json_millis(self.ago(peer.since)),
                rtt_ms: peer.rtt.map(json_millis),
                max_datagram: peer.max_datagram,
                online: peer.online,
                pairs: peer
                    .pairs
                    .iter()
                    .map(|pair| JsonPair {
                        local: pair.local,
                        remote: pair.remote,
                        source: pair.source.to_string(),
                        sent: sent(pair),
                        answered: pair.answered,
                        last_sent_ms_ago: ms_ago(pair.last_sent),
                        last_answer_ms_ago: ms_ago(pair.last_answer),
                        rtt_ms: pair.rtt.map(json_millis),
                        next_ms: pair.next.map(|next| json_millis(next.saturating_duration_since(self.now))),
                        error: pair.error.clone(),
                    })
                    .collect(),
            }),
        }
    }

    /// For people: lines without a line feed at the end.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("device      {}\n", paint(STRONG, self.device));
        match &self.status.base {
            Some(base) => self.write_base(&mut text, base),
            None => {
                let why = self.status.why_no_base.as_deref().unwrap_or("not yet");
                let _ = writeln!(text, "base        none: {why}");
            }
        }
        if let Some(mapped) = self.status.mapped {
            let _ = writeln!(text, "mapped      the router leads {mapped} here");
        }
        match self.peer() {
            Some(peer) => self.write_peer(&mut text, peer),
            None => text.push_str("path        none: nothing is known of this device yet\n"),
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn write_base(&self, text: &mut String, base: &BaseStatus) {
        let rtt = base.rtt.map(|rtt| format!(", {} ms", millis(rtt))).unwrap_or_default();
        let since = age(self.ago(base.since));
        let _ = writeln!(text, "base        {} at {}, for {since}{rtt}", base.name, base.remote);
        if base.udp.is_empty() {
            text.push_str("  udp       the base offers none\n");
        }
        for binding in &base.udp {
            let answer = match binding.reflexive {
                Some(seen) => format!("sees this device at {seen}"),
                None => "no answer".to_owned(),
            };
            let used = if binding.confirmed { ", in use" } else { "" };
            let rtt = binding.rtt.map(|rtt| format!(", {} ms", millis(rtt))).unwrap_or_default();
            let size = if binding.full_size { "" } else { ", small messages only" };
            let size = if binding.reflexive.is_some() { size } else { "" };
            let _ = writeln!(text, "  udp       {} {answer}{used}{rtt}{size}", binding.address);
        }
    }

    fn write_peer(&self, text: &mut String, peer: &PeerStatus) {
        let since = age(self.ago(peer.since));
        let rtt = peer.rtt.map(|rtt| format!(", {} ms", millis(rtt))).unwrap_or_default();
        let up_to = format!(", up to {} bytes", peer.max_datagram);
        let _ = writeln!(text, "path        {}, for {since}{rtt}{up_to}", output::path(peer.path));
        if !peer.why.is_empty() {
            let _ = writeln!(text, "  why       {}", peer.why);
        }
        // What a base has said stays until another one says something.
        let online = match (peer.online, self.status.base.is_some()) {
            (Some(true), true) => "the base says it is online",
            (Some(true), false) => "unknown: the base that is gone said that it was online",
            (Some(false), true) => "the base says it is not there, or does not want to talk",
            (Some(false), false) => "unknown: the base that is gone said that it was not there",
            (None, true) => "the base says nothing of it",
            (None, false) => "unknown: there is no base",
        };
        let _ = writeln!(text, "  presence  {online}");
        if peer.pairs.is_empty() {
            text.push_str("candidates  none\n");
            return;
        }
        let _ = writeln!(text, "candidates  {}", paint(WEAK, "address, where it is from, what it answered"));
        for pair in &peer.pairs {
            self.write_pair(text, pair, peer.path);
        }
    }

    fn write_pair(&self, text: &mut String, pair: &PairStatus, path: Path) {
        let mark = if path == Path::Direct(pair.remote) && pair.answered > 0 { '*' } else { ' ' };
        let local = pair.local.map(|local| format!(" from {local}")).unwrap_or_default();
        let answer = match (pair.answered, pair.last_answer) {
            (0, _) | (_, None) => format!("no answer to {}", sent(pair)),
            (answered, Some(last)) => {
                let rtt = pair.rtt.map(|rtt| format!(", {} ms", millis(rtt))).unwrap_or_default();
                format!("answered {answered} of {}{rtt}, {} ago", sent(pair), age(self.ago(last)))
            }
        };
        let error = pair.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        let next = pair.next.map_or_else(String::new, |next| {
            format!(", next in {}", age(next.saturating_duration_since(self.now)))
        });
        let _ = writeln!(text, " {mark} {}{local}  {}  {answer}{error}{next}", pair.remote, pair.source);
    }
}

/// HELLOs sent. What was answered had been sent, even where its HELLO counts for another pair.
fn sent(pair: &PairStatus) -> u64 {
    pair.sent.max(pair.answered)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bowline::{CandidateSource, Counters};

    use super::*;

    const DEVICE: DeviceId = DeviceId::from_bytes([7; 14]);

    fn address(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 5123).into()
    }

    fn view(now: Instant) -> View {
        let pair = |last, answered: u64| PairStatus {
            local: None,
            remote: address(last),
            source: CandidateSource::Reflexive,
            sent: 5,
            answered,
            last_sent: Some(now),
            last_answer: (answered > 0).then_some(now),
            rtt: (answered > 0).then_some(Duration::from_millis(12)),
            next: Some(now + Duration::from_secs(25)),
            error: None,
        };
        let peer = PeerStatus {
            id: DEVICE,
            path: Path::Direct(address(7)),
            since: now,
            why: "first to answer".to_owned(),
            rtt: Some(Duration::from_millis(12)),
            max_datagram: 1200,
            online: Some(true),
            pairs: vec![pair(7, 3), pair(8, 0)],
        };
        let base = BaseStatus {
            name: "base.example:4477".to_owned(),
            id: DeviceId::from_bytes([9; 14]),
            remote: address(1),
            seen: address(2),
            since: now,
            rtt: None,
            udp: vec![BindingStatus {
                address: address(1),
                reflexive: Some(address(3)),
                confirmed: true,
                full_size: true,
                answered: Some(now),
                rtt: Some(Duration::from_millis(3)),
            }],
        };
        let status = Status {
            id: DeviceId::from_bytes([1; 14]),
            base: Some(base),
            why_no_base: None,
            own: vec![address(4)],
            mapped: None,
            peers: vec![peer],
            counters: Counters::default(),
        };
        View::new(DEVICE, status, now)
    }

    fn plain(view: &View) -> String {
        anstream::adapter::strip_str(&view.text()).to_string()
    }

    #[test]
    fn the_text_tells_base_reflexive_address_path_and_what_each_candidate_answered() {
        let text = plain(&view(Instant::now()));
        for expected in [
            "base        base.example:4477 at 192.0.2.1:5123, for 0 s",
            "192.0.2.1:5123 sees this device at 192.0.2.3:5123, in use, 3.00 ms",
            "path        direct 192.0.2.7:5123, for 0 s, 12.0 ms, up to 1200 bytes",
            "why       first to answer",
            " * 192.0.2.7:5123  reflexive  answered 3 of 5, 12.0 ms, 0 s ago, next in 25 s",
            "   192.0.2.8:5123  reflexive  no answer to 5, next in 25 s",
        ] {
            assert!(text.contains(expected), "no {expected:?} in\n{text}");
        }
    }

    #[test]
    fn the_text_says_why_there_is_no_base_and_that_a_peer_is_unknown() {
        let mut view = view(Instant::now());
        view.status.base = None;
        view.status.why_no_base = Some("192.0.2.1:5123 refused the connection".to_owned());
        view.status.peers.clear();
        let text = plain(&view);
        assert!(text.contains("base        none: 192.0.2.1:5123 refused the connection"), "{text}");
        assert!(text.contains("path        none: nothing is known"), "{text}");
    }

    #[test]
    fn what_a_lost_base_said_is_told_as_that_and_no_more_is_answered_than_was_sent() {
        let mut view = view(Instant::now());
        assert!(plain(&view).contains("presence  the base says it is online"));
        view.status.base = None;
        view.status.peers[0].pairs[0].answered = 7;
        let text = plain(&view);
        assert!(text.contains("the base that is gone said that it was online"), "{text}");
        assert!(text.contains("answered 7 of 7"), "{text}");
    }

    #[test]
    fn ages_and_round_trips_are_no_change_but_answers_paths_and_bases_are() {
        let now = Instant::now();
        let before = view(now).facts();
        let mut later = view(now);
        later.now += Duration::from_secs(100);
        later.status.peers[0].rtt = None;
        later.status.peers[0].pairs[0].answered += 1;
        later.status.counters.data_sent_direct += 1;
        assert_eq!(later.facts(), before);
        let changes: [fn(&mut Status); 5] = [
            |status| status.peers[0].pairs[1].answered = 1,
            |status| status.peers[0].path = Path::RelayUdp,
            |status| status.peers[0].why.push('!'),
            |status| status.base = None,
            |status| status.own.clear(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut changed = view(now);
            change(&mut changed.status);
            assert_ne!(changed.facts(), before, "change {number}");
        }
    }

    #[test]
    fn json_has_what_the_text_has() {
        let json = serde_json::to_value(view(Instant::now()).json()).unwrap();
        assert_eq!(json["device"], DEVICE.to_string());
        assert_eq!(json["base"]["udp"][0]["reflexive"], "192.0.2.3:5123");
        assert_eq!((&json["peer"]["path"], &json["peer"]["rtt_ms"]), (&"direct".into(), &12.0.into()));
        assert_eq!(json["peer"]["pairs"][1]["answered"], 0);
        assert!(json["why_no_base"].is_null());
    }
}
