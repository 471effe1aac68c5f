//! From a mirrored message to bytes, through the crate's own encoders; back again in `reading`.

mod reading;

use bowline_proto::{
    DeviceId, PublicKey,
    wire::{
        cluster::{self, Body, Change, Lease, Probe, Record, Want},
        frame,
        peer::{self, Hello, HelloReply},
        relay,
        tcp::{
            self, BaseFrame, BaseHello, DeviceAddresses, ErrorCode, GetCookie, Info, Notice, NoticeCode,
            Register, Registered, UnreachableReason,
        },
        udp::{self, MapCheck, NatConfirm, NatInit, NatOk},
    },
};

pub(crate) use reading::{decode, tag_holds, verifies};

use super::{
    file::{Hex, Keys, Signing, Tagging},
    message::{HeaderFields, Message, RecordFields, WantFields},
};

/// Which decoder reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Tcp,
    Udp,
    Peer,
    Announce,
    Cluster,
}

fn id(hex: &Hex) -> DeviceId {
    DeviceId::from_bytes(hex.array())
}

fn hex(id: DeviceId) -> Hex {
    Hex::from(id.as_bytes())
}

/// The bytes of a message.
pub(crate) fn encode(family: Family, message: &Message, signing: Option<&Signing>, keys: &Keys) -> Vec<u8> {
    match family {
        Family::Tcp => encode_tcp(message, signing, keys),
        Family::Udp => encode_udp(message, signing, keys),
        Family::Peer => encode_peer(message, signing, keys),
        Family::Announce => match message {
            Message::Announcement { device_id } => id(device_id).as_bytes().to_vec(),
            other => panic!("{other:?} is no announcement"),
        },
        Family::Cluster => panic!("what bases say has a tag beside it: `encode_cluster`"),
    }
}

/// The bytes of a message between bases.
pub(crate) fn encode_cluster(message: &Message, tagging: Option<&Tagging>) -> Vec<u8> {
    let probe = |kind, base_id: &Hex, nonce: &Hex| {
        let key = tagging.expect("a probe is tagged").key.array();
        Probe { kind, base: id(base_id), nonce: nonce.array() }.encode(&key)
    };
    match message {
        Message::Lease { base_id, incarnation, connection, key, udp_addresses } => Lease {
            base: id(base_id),
            incarnation: incarnation.array(),
            connection: *connection,
            key: key.array(),
            addresses: udp_addresses.clone(),
        }
        .encode(),
        Message::Record(fields) => record(fields).encode(),
        Message::Change { device_id, revision, record: fields } => {
            let record = fields.as_ref().map(record);
            Change { device: id(device_id), revision: *revision, record }.encode()
        }
        Message::BaseData { destination_id, tag, carried, source_id, data } => {
            let (to, from) = (id(destination_id), id(source_id));
            let tag = tagging.map_or(tag.array(), |tagging| cluster::tag(&tagging.key.array(), from, to));
            let header = relay::header(*carried, from);
            [&cluster::prefix(to, tag), &header[..], &data.0].concat()
        }
        Message::BasePing { base_id, nonce, .. } => probe(cluster::BASE_PING, base_id, nonce),
        Message::BasePong { base_id, nonce, .. } => probe(cluster::BASE_PONG, base_id, nonce),
        other => {
            let (header, body) = body(other);
            let (base, incarnation) = (id(&header.base_id), header.incarnation.array());
            cluster::Message { base, incarnation, seq: header.number, body }.encode()
        }
    }
}

fn record(fields: &RecordFields) -> Record {
    Record {
        base: id(&fields.base_id),
        incarnation: fields.incarnation.array(),
        boot: fields.boot_id.array(),
        attempt: fields.attempt,
        replaced: fields.replaced.iter().map(Hex::array).collect(),
    }
}

fn body(message: &Message) -> (&HeaderFields, Body) {
    match message {
        Message::Wants { header, wants } => {
            let want = |want: &WantFields| Want {
                asker: id(&want.asker_id),
                revision: want.revision,
                about: id(&want.about_id),
                heard: want.heard,
                on: want.flags & 1 != 0,
                again: want.flags & 2 != 0,
            };
            (header, Body::Wants(wants.iter().map(want).collect()))
        }
        Message::Addresses { header, to_id, revision, flags, about_id, introduction_key, reflexive, own } => {
            let addresses = DeviceAddresses {
                device: id(about_id),
                online: flags & 1 != 0,
                joined: flags & 4 != 0,
                introduction: peer::IntroductionKey(introduction_key.array()),
                reflexive: reflexive.clone(),
                own: own.clone(),
            };
            let (to, left) = (id(to_id), flags & 2 != 0);
            (header, Body::Addresses { to, revision: *revision, left, addresses })
        }
        Message::Blocked { header, sender_id, destination_id, reason } => {
            let (from, about) = (id(sender_id), id(destination_id));
            (header, Body::Blocked { from, about, reason: UnreachableReason::from_u8(*reason) })
        }
        Message::NotHere { header, device_id, sender_id } => {
            (header, Body::NotHere { device: id(device_id), from: id(sender_id) })
        }
        Message::Cloned { header, device_id } => (header, Body::Cloned(id(device_id))),
        other => panic!("{other:?} does not travel between bases"),
    }
}

fn encode_tcp(message: &Message, signing: Option<&Signing>, keys: &Keys) -> Vec<u8> {
    let mut out = Vec::new();
    match message {
        &Message::GetCookie { highest_version, capabilities } => {
            GetCookie { highest_version, capabilities }.write(&mut out);
        }
        Message::Register { device_id, public_key, boot_id, attempt, capabilities, agent } => {
            let signing = signing.expect("REGISTER is signed");
            let register = Register {
                device: id(device_id),
                public_key: PublicKey(public_key.array()),
                boot: boot_id.array(),
                attempt: *attempt,
                capabilities: *capabilities,
                agent: agent.clone(),
            };
            let base = id(signing.base_id.as_ref().expect("bound to a base"));
            let cookie = signing.cookie.as_ref().expect("bound to a cookie").array();
            register.write(&mut out, &keys[&signing.signer].secret(), base, &cookie);
        }
        Message::Info { number, introduction_master_key, own_addresses } => {
            let (number, master_key) = (*number, introduction_master_key.array());
            Info { number, master_key, own: own_addresses.clone() }.write(&mut out);
        }
        Message::RequestInfo { device_id } => tcp::write_request_info(&mut out, id(device_id)),
        Message::ReleaseInfo { device_id } => tcp::write_release_info(&mut out, id(device_id)),
        Message::Leave {} => tcp::write_leave(&mut out),
        Message::SendData { destination_id, data } => frame::write(&mut out, |out| {
            out.extend_from_slice(&relay::header(relay::SEND_DATA, id(destination_id)));
            out.extend_from_slice(&data.0);
        }),
        Message::SendJoined { destination_id, size, data } => frame::write(&mut out, |out| {
            out.extend_from_slice(&relay::joined_header(id(destination_id), *size));
            out.extend_from_slice(&data.0);
        }),
        Message::RecvJoined { source_id, size, data } => {
            let body = joined_body(*size, data);
            BaseFrame::RecvJoined(id(source_id), &body).write(&mut out);
        }
        other => base_frame(other).write(&mut out),
    }
    out
}

fn joined_body(size: u16, data: &Hex) -> Vec<u8> {
    [&size.to_be_bytes()[..], &data.0].concat()
}

fn base_frame(message: &Message) -> BaseFrame<'_> {
    match message {
        Message::BaseHello { version, cookie, base_id, cluster_id, capabilities } => {
            BaseFrame::BaseHello(BaseHello {
                version: *version,
                cookie: cookie.array(),
                base: id(base_id),
                cluster: id(cluster_id),
                capabilities: *capabilities,
            })
        }
        Message::Registered { seen, keepalive_seconds, udp_addresses } => BaseFrame::Registered(Registered {
            seen: *seen,
            keepalive: *keepalive_seconds,
            udp: udp_addresses.clone(),
        }),
        Message::Error { code, retry_after_seconds, text } => BaseFrame::Error(tcp::Error {
            code: ErrorCode::from_u8(*code),
            retry_after: *retry_after_seconds,
            text: text.clone(),
        }),
        Message::Pong { number } => BaseFrame::Pong(*number),
        Message::DeviceAddresses { device_id, flags, introduction_key, reflexive, own } => {
            BaseFrame::DeviceAddresses(DeviceAddresses {
                device: id(device_id),
                online: flags & tcp::FLAG_ONLINE != 0,
                joined: flags & tcp::FLAG_JOINED != 0,
                introduction: peer::IntroductionKey(introduction_key.array()),
                reflexive: reflexive.clone(),
                own: own.clone(),
            })
        }
        Message::Unreachable { device_id, reason } => {
            BaseFrame::Unreachable(id(device_id), UnreachableReason::from_u8(*reason))
        }
        Message::GoAway { seconds } => BaseFrame::GoAway(*seconds),
        Message::Wanted { device_id } => BaseFrame::Wanted(id(device_id)),
        Message::Notice { code, text } => {
            BaseFrame::Notice(Notice { code: NoticeCode::from_u8(*code), text: text.clone() })
        }
        Message::RecvData { source_id, data } => BaseFrame::RecvData(id(source_id), &data.0),
        other => panic!("{other:?} does not travel over TCP"),
    }
}

fn encode_udp(message: &Message, signing: Option<&Signing>, keys: &Keys) -> Vec<u8> {
    let relayed = |kind, hex: &Hex, data: &Hex| [&relay::header(kind, id(hex)), data.0.as_slice()].concat();
    match message {
        Message::NatInit { cookie, seq, own_addresses, padding } => {
            let signing = signing.expect("NAT-INIT is signed");
            let init = NatInit { cookie: cookie.array(), seq: *seq, own: own_addresses.clone() };
            let base = id(signing.base_id.as_ref().expect("bound to a base"));
            let index = signing.udp_index.expect("bound to an address");
            let (key, addresses) = (keys[&signing.signer].secret(), 18 * own_addresses.len());
            init.encode(&key, base, index, udp::NAT_INIT_MIN_LEN + addresses + padding)
        }
        Message::NatOk { cookie, seq, challenge, flags, seen, padding } => NatOk {
            cookie: cookie.array(),
            seq: *seq,
            challenge: challenge.array(),
            confirmed: flags & udp::FLAG_CONFIRMED != 0,
            seen: *seen,
        }
        .encode(udp::NAT_OK_LEN + padding),
        Message::NatConfirm { cookie, seq, challenge } => {
            NatConfirm { cookie: cookie.array(), seq: *seq, challenge: challenge.array() }.encode()
        }
        Message::NatUnknown {} => vec![udp::NAT_UNKNOWN],
        Message::MapCheck { cookie, nonce, address } => {
            MapCheck { cookie: cookie.array(), nonce: nonce.array(), address: *address }.encode()
        }
        Message::MapOk { nonce } => udp::map_ok(nonce.array()),
        Message::SendData { destination_id, data } => relayed(relay::SEND_DATA, destination_id, data),
        Message::RecvData { source_id, data } => relayed(relay::RECV_DATA, source_id, data),
        Message::SendJoined { destination_id, size, data } => {
            [&relay::joined_header(id(destination_id), *size), &data.0[..]].concat()
        }
        Message::RecvJoined { source_id, size, data } => {
            [&relay::header(relay::RECV_JOINED, id(source_id)), &joined_body(*size, data)[..]].concat()
        }
        other => panic!("{other:?} does not travel over UDP"),
    }
}

fn encode_peer(message: &Message, signing: Option<&Signing>, keys: &Keys) -> Vec<u8> {
    match message {
        Message::Data { data } => {
            assert!(!peer::needs_escape(&data.0), "this data cannot travel bare");
            data.0.clone()
        }
        Message::EscapedData { data } => [&peer::escape_prefix(), data.0.as_slice()].concat(),
        Message::JoinedData { size, data } => [&peer::joined_header(*size), data.0.as_slice()].concat(),
        Message::Hello { responder_id, token, takes, padding, .. } => {
            let signing = signing.expect("HELLO is signed");
            Hello::encode(
                id(responder_id),
                token.array(),
                &signing.introduction_key(),
                &keys[&signing.signer].secret(),
                takes.unwrap_or(0),
                peer::HELLO_LEN + usize::from(takes.is_some()) + padding,
            )
        }
        Message::HelloReply { initiator_id, token, .. } => {
            let signing = signing.expect("HELLO-REPLY is signed");
            HelloReply::encode(id(initiator_id), token.array(), &keys[&signing.signer].secret())
        }
        Message::UnknownSource {} => peer::unknown_source().to_vec(),
        Message::Knock {} => peer::knock().to_vec(),
        other => panic!("{other:?} does not travel between hosts"),
    }
}
