//! From bytes to a mirrored message, through the crate's own decoders; what is wrong with a message is found there, too.

use bowline_proto::{
    identity::KnownKeys,
    wire::{
        Malformed, announce,
        cluster::{self, Body, Change, Lease, Probe, Record, Want},
        frame, joined,
        peer::{self, PeerDatagram},
        relay,
        tcp::{self, BaseFrame, HostFrame},
        udp::{self, BaseDatagram, MapCheck, NatConfirm, UnverifiedNatInit},
    },
};

use super::{
    super::{
        file::{Hex, Keys, Sender, Signing, Tagging},
        message::{HeaderFields, Message, RecordFields, WantFields},
    },
    Family, hex, id,
};

/// The size of joined messages, and their bytes.
fn read_joined(body: &[u8]) -> Result<(u16, Hex), Malformed> {
    let (size, data) = joined::read(body)?;
    Ok((size.try_into().expect("two bytes"), data.into()))
}

/// The message in the bytes that `from` sent; `None` where the type is one that a receiver skips (TCP).
pub(crate) fn decode(family: Family, from: Sender, bytes: &[u8]) -> Result<Option<Message>, Malformed> {
    match (family, from) {
        (Family::Tcp, Sender::Host) => Ok(read_host_frame(&whole_frame(bytes)?)?),
        (Family::Tcp, Sender::Base) => Ok(read_base_frame(&whole_frame(bytes)?)?),
        (Family::Udp, Sender::Host) => read_host_datagram(bytes).map(Some),
        (Family::Udp, Sender::Base) => read_base_datagram(bytes).map(Some),
        (Family::Peer, Sender::Peer) => read_peer_datagram(bytes).map(Some),
        (Family::Announce, Sender::Link) => {
            announce::decode(bytes).map(|device| Some(Message::Announcement { device_id: hex(device) }))
        }
        (Family::Cluster, Sender::Base) => read_cluster(bytes).map(Some),
        other => panic!("nobody sends {other:?}"),
    }
}

fn read_cluster(bytes: &[u8]) -> Result<Message, Malformed> {
    // As protocol section 17 numbers them.
    Ok(match *bytes.first().ok_or(Malformed::TooShort)? {
        0x50 => {
            let m = Lease::decode(bytes)?;
            Message::Lease {
                base_id: hex(m.base),
                incarnation: m.incarnation.into(),
                connection: m.connection,
                key: m.key.into(),
                udp_addresses: m.addresses,
            }
        }
        0x51 => Message::Record(record_fields(&Record::decode(bytes)?)),
        0x52 => {
            let m = Change::decode(bytes)?;
            let record = m.record.as_ref().map(record_fields);
            Message::Change { device_id: hex(m.device), revision: m.revision, record }
        }
        cluster::BASE_DATA => {
            let m = cluster::BaseData::decode(bytes)?;
            let data = &bytes[bytes.len() - m.length..];
            Message::BaseData {
                destination_id: hex(m.to),
                tag: m.tag.into(),
                carried: bytes[cluster::PREFIX_LEN],
                source_id: hex(m.from),
                data: data.into(),
            }
        }
        kind @ (cluster::BASE_PING | cluster::BASE_PONG) => read_probe(kind, bytes)?,
        _ => read_body(cluster::Message::decode(bytes)?),
    })
}

/// The decoder looks at the tag at once; for its fields the tag is taken as it is. [`tag_holds`] says the rest.
fn read_probe(kind: u8, bytes: &[u8]) -> Result<Message, Malformed> {
    match bytes.len() {
        cluster::PROBE_LEN => {}
        length if length < cluster::PROBE_LEN => return Err(Malformed::TooShort),
        _ => return Err(Malformed::TooLong),
    }
    let (tag, base_id, nonce) = (bytes[1..9].into(), bytes[9..23].into(), bytes[23..31].into());
    Ok(match kind {
        cluster::BASE_PING => Message::BasePing { tag, base_id, nonce },
        _ => Message::BasePong { tag, base_id, nonce },
    })
}

fn record_fields(m: &Record) -> RecordFields {
    RecordFields {
        base_id: hex(m.base),
        incarnation: m.incarnation.into(),
        boot_id: m.boot.into(),
        attempt: m.attempt,
        replaced: m.replaced.iter().map(Hex::from).collect(),
    }
}

fn read_body(m: cluster::Message) -> Message {
    let header = HeaderFields { base_id: hex(m.base), incarnation: m.incarnation.into(), number: m.seq };
    match m.body {
        Body::Wants(wants) => {
            let want = |want: &Want| WantFields {
                asker_id: hex(want.asker),
                revision: want.revision,
                about_id: hex(want.about),
                heard: want.heard,
                flags: u8::from(want.on) | u8::from(want.again) << 1,
            };
            Message::Wants { header, wants: wants.iter().map(want).collect() }
        }
        Body::Addresses { to, revision, left, addresses } => Message::Addresses {
            header,
            to_id: hex(to),
            revision,
            flags: u8::from(addresses.online) | u8::from(left) << 1 | u8::from(addresses.joined) << 2,
            about_id: hex(addresses.device),
            introduction_key: addresses.introduction.0.into(),
            reflexive: addresses.reflexive,
            own: addresses.own,
        },
        Body::Blocked { from, about, reason } => Message::Blocked {
            header,
            sender_id: hex(from),
            destination_id: hex(about),
            reason: reason.to_u8(),
        },
        Body::NotHere { device, from } => {
            Message::NotHere { header, device_id: hex(device), sender_id: hex(from) }
        }
        Body::Cloned(device) => Message::Cloned { header, device_id: hex(device) },
    }
}

/// Whether a receiver with this key takes the message for one of the cluster's.
pub(crate) fn tag_holds(bytes: &[u8], tagging: &Tagging) -> bool {
    let key = tagging.key.array();
    if bytes[0] == cluster::BASE_DATA {
        let data = cluster::BaseData::decode(bytes).expect("a BASE-DATA");
        return data.tag == cluster::tag(&key, data.from, data.to);
    }
    Probe::decode(bytes, &key).is_some()
}

fn whole_frame(bytes: &[u8]) -> Result<Vec<u8>, Malformed> {
    let mut frames = frame::Frames::default();
    frames.buffer().extend_from_slice(bytes);
    let frame = frames.next_frame()?.ok_or(Malformed::TooShort)?;
    assert!(frames.buffer().is_empty(), "more than one frame");
    Ok(frame.to_vec())
}

fn read_host_frame(frame: &[u8]) -> Result<Option<Message>, Malformed> {
    Ok(Some(match HostFrame::decode(frame)? {
        HostFrame::GetCookie(m) => {
            Message::GetCookie { highest_version: m.highest_version, capabilities: m.capabilities }
        }
        HostFrame::Register(m) => {
            let m = m.claim();
            Message::Register {
                device_id: hex(m.device),
                public_key: m.public_key.0.into(),
                boot_id: m.boot.into(),
                attempt: m.attempt,
                capabilities: m.capabilities,
                agent: m.agent.clone(),
            }
        }
        HostFrame::Info(m) => Message::Info {
            number: m.number,
            introduction_master_key: m.master_key.into(),
            own_addresses: m.own,
        },
        HostFrame::RequestInfo(device) => Message::RequestInfo { device_id: hex(device) },
        HostFrame::ReleaseInfo(device) => Message::ReleaseInfo { device_id: hex(device) },
        HostFrame::Leave => Message::Leave {},
        HostFrame::SendData(to, data) => Message::SendData { destination_id: hex(to), data: data.into() },
        HostFrame::SendJoined(to, body) => {
            let (size, data) = read_joined(body)?;
            Message::SendJoined { destination_id: hex(to), size, data }
        }
        HostFrame::Unknown(_) => return Ok(None),
    }))
}

fn read_base_frame(frame: &[u8]) -> Result<Option<Message>, Malformed> {
    Ok(Some(match BaseFrame::decode(frame)? {
        BaseFrame::BaseHello(m) => Message::BaseHello {
            version: m.version,
            cookie: m.cookie.into(),
            base_id: hex(m.base),
            cluster_id: hex(m.cluster),
            capabilities: m.capabilities,
        },
        BaseFrame::Registered(m) => {
            Message::Registered { seen: m.seen, keepalive_seconds: m.keepalive, udp_addresses: m.udp }
        }
        BaseFrame::Error(m) => {
            Message::Error { code: m.code.to_u8(), retry_after_seconds: m.retry_after, text: m.text }
        }
        BaseFrame::Pong(number) => Message::Pong { number },
        BaseFrame::DeviceAddresses(m) => Message::DeviceAddresses {
            device_id: hex(m.device),
            flags: if m.online { tcp::FLAG_ONLINE } else { 0 } | if m.joined { tcp::FLAG_JOINED } else { 0 },
            introduction_key: m.introduction.0.into(),
            reflexive: m.reflexive,
            own: m.own,
        },
        BaseFrame::Unreachable(device, reason) => {
            Message::Unreachable { device_id: hex(device), reason: reason.to_u8() }
        }
        BaseFrame::GoAway(seconds) => Message::GoAway { seconds },
        BaseFrame::Wanted(device) => Message::Wanted { device_id: hex(device) },
        BaseFrame::Notice(m) => Message::Notice { code: m.code.to_u8(), text: m.text },
        BaseFrame::RecvData(source, data) => Message::RecvData { source_id: hex(source), data: data.into() },
        BaseFrame::RecvJoined(source, body) => {
            let (size, data) = read_joined(body)?;
            Message::RecvJoined { source_id: hex(source), size, data }
        }
        BaseFrame::Unknown(_) => return Ok(None),
    }))
}

fn read_host_datagram(bytes: &[u8]) -> Result<Message, Malformed> {
    Ok(match *bytes.first().ok_or(Malformed::TooShort)? {
        udp::NAT_INIT => {
            let init = UnverifiedNatInit::decode(bytes)?;
            let m = init.claim();
            Message::NatInit {
                cookie: m.cookie.into(),
                seq: m.seq,
                own_addresses: m.own.clone(),
                padding: bytes.len() - udp::NAT_INIT_MIN_LEN - 18 * m.own.len(),
            }
        }
        udp::NAT_CONFIRM => {
            let m = NatConfirm::decode(bytes)?;
            Message::NatConfirm { cookie: m.cookie.into(), seq: m.seq, challenge: m.challenge.into() }
        }
        relay::SEND_DATA => {
            let (to, data) = relay::split(bytes)?;
            Message::SendData { destination_id: hex(to), data: data.into() }
        }
        relay::SEND_JOINED => {
            let (to, body) = relay::split(bytes)?;
            let (size, data) = read_joined(body)?;
            Message::SendJoined { destination_id: hex(to), size, data }
        }
        udp::MAP_CHECK => {
            let m = MapCheck::decode(bytes)?;
            Message::MapCheck { cookie: m.cookie.into(), nonce: m.nonce.into(), address: m.address }
        }
        kind @ (udp::NAT_OK | udp::NAT_UNKNOWN | udp::MAP_OK | relay::RECV_DATA | relay::RECV_JOINED) => {
            return Err(Malformed::WrongSide(kind));
        }
        kind => return Err(Malformed::UnknownType(kind)),
    })
}

fn read_base_datagram(bytes: &[u8]) -> Result<Message, Malformed> {
    Ok(match BaseDatagram::decode(bytes)? {
        BaseDatagram::NatOk(m) => Message::NatOk {
            cookie: m.cookie.into(),
            seq: m.seq,
            challenge: m.challenge.into(),
            flags: if m.confirmed { udp::FLAG_CONFIRMED } else { 0 },
            seen: m.seen,
            padding: bytes.len() - udp::NAT_OK_LEN,
        },
        BaseDatagram::NatUnknown => Message::NatUnknown {},
        BaseDatagram::MapOk(nonce) => Message::MapOk { nonce: nonce.into() },
        BaseDatagram::RecvData(source, data) => {
            Message::RecvData { source_id: hex(source), data: data.into() }
        }
        BaseDatagram::RecvJoined(source, body) => {
            let (size, data) = read_joined(body)?;
            Message::RecvJoined { source_id: hex(source), size, data }
        }
    })
}

fn read_peer_datagram(bytes: &[u8]) -> Result<Message, Malformed> {
    Ok(match PeerDatagram::decode(bytes)? {
        PeerDatagram::Data(data) if bytes.starts_with(&peer::MAGIC) => {
            Message::EscapedData { data: data.into() }
        }
        PeerDatagram::Data(data) => Message::Data { data: data.into() },
        PeerDatagram::Joined { size, data } => {
            Message::JoinedData { size: size.try_into().expect("two bytes"), data: data.into() }
        }
        PeerDatagram::Hello(hello) => {
            let m = hello.claim();
            let introduction = peer::HELLO_LEN - 64 - peer::INTRODUCTION_LEN;
            Message::Hello {
                initiator_id: hex(m.initiator),
                responder_id: hex(m.responder),
                public_key: m.public_key.0.into(),
                token: m.token.into(),
                introduction: bytes[introduction..introduction + peer::INTRODUCTION_LEN].into(),
                takes: (bytes.len() > peer::HELLO_LEN).then_some(u8::from(hello.takes_joined())),
                padding: bytes.len().saturating_sub(peer::SAYING_HELLO_LEN),
            }
        }
        PeerDatagram::HelloReply(reply) => {
            let m = reply.claim();
            Message::HelloReply {
                initiator_id: hex(m.initiator),
                responder_id: hex(m.responder),
                public_key: m.public_key.0.into(),
                token: m.token.into(),
            }
        }
        PeerDatagram::UnknownSource => Message::UnknownSource {},
        PeerDatagram::Knock => Message::Knock {},
    })
}

/// Whether a well-formed signed message verifies for the receiver that `signing` describes.
pub(crate) fn verifies(family: Family, bytes: &[u8], signing: &Signing, keys: &Keys) -> bool {
    let base = signing.base_id.as_ref().map(id);
    match family {
        Family::Tcp => match HostFrame::decode(&bytes[frame::LENGTH_LEN..]) {
            Ok(HostFrame::Register(m)) => {
                let cookie = signing.cookie.as_ref().expect("bound to a cookie").array();
                m.verify(base.expect("bound to a base"), &cookie).is_some()
            }
            other => panic!("{other:?} is not signed"),
        },
        Family::Udp => UnverifiedNatInit::decode(bytes)
            .expect("a NAT-INIT")
            .verify(
                &keys[&signing.signer].secret().public(),
                base.expect("bound to a base"),
                signing.udp_index.expect("bound to an address"),
            )
            .is_some(),
        Family::Peer => match PeerDatagram::decode(bytes) {
            Ok(PeerDatagram::Hello(m)) => m.verify(&mut KnownKeys::default()).is_some(),
            Ok(PeerDatagram::HelloReply(m)) => m.verify(&mut KnownKeys::default()).is_some(),
            other => panic!("{other:?} is not signed"),
        },
        Family::Announce | Family::Cluster => panic!("{family:?} is not signed"),
    }
}
