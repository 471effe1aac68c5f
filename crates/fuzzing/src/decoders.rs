//! The decoders: they never panic, and what they take returns unchanged when it is written again.

use bowline_proto::{
    DeviceId, PublicKey,
    host::BaseName,
    identity::KnownKeys,
    wire::{
        addr, announce as announcement,
        frame::{Frames, LENGTH_LEN, MAX_FRAME},
        joined::MAX_JOINED,
        peer::{self, IntroductionKey, MAGIC, PREFIX_LEN, PeerDatagram},
        relay,
        tcp::{self, BaseFrame, HostFrame},
        udp::{BaseDatagram, NAT_OK_LEN, NatConfirm, NatOk, UnverifiedNatInit, map_ok},
    },
};

use crate::input::Input;

/// A frame from a host, as a base reads it.
pub fn tcp_from_host(frame: &[u8]) {
    let Ok(decoded) = HostFrame::decode(frame) else { return };
    let mut out = Vec::new();
    match decoded {
        HostFrame::GetCookie(m) => m.write(&mut out),
        HostFrame::Register(m) => {
            assert!(m.claim().agent.len() <= 255 && !m.claim().agent.chars().any(char::is_control));
            assert!(m.verify(DeviceId::from_bytes([0; 14]), &[0; 8]).is_none(), "nobody signed this");
            return;
        }
        HostFrame::Info(m) => m.write(&mut out),
        HostFrame::RequestInfo(id) => tcp::write_request_info(&mut out, id),
        HostFrame::ReleaseInfo(id) => tcp::write_release_info(&mut out, id),
        HostFrame::Leave => tcp::write_leave(&mut out),
        HostFrame::SendData(id, data) => {
            assert_eq!(frame, [&relay::header(relay::SEND_DATA, id), data].concat());
            return;
        }
        HostFrame::SendJoined(id, body) => {
            assert_eq!(frame, [&relay::header(relay::SEND_JOINED, id), body].concat());
            return;
        }
        HostFrame::Unknown(_) => return,
    }
    // What was read is all that counts: the frame may have carried more.
    assert!(frame.starts_with(&out[LENGTH_LEN..]), "written anew it differs");
}

/// A frame from a base, as a host reads it.
pub fn tcp_from_base(frame: &[u8]) {
    let Ok(decoded) = BaseFrame::decode(frame) else { return };
    if frame.len() > MAX_FRAME {
        return;
    }
    let mut out = Vec::new();
    decoded.write(&mut out);
    assert_eq!(BaseFrame::decode(&out[LENGTH_LEN..]), Ok(decoded), "read anew it differs");
}

/// A datagram between a host and a base, read by both sides.
pub fn udp(datagram: &[u8]) {
    match BaseDatagram::decode(datagram) {
        Ok(BaseDatagram::NatOk(m)) => assert_eq!(NatOk::decode(&m.encode(datagram.len())), Ok(m)),
        Ok(BaseDatagram::NatUnknown) => assert_eq!(datagram.len(), 1),
        Ok(BaseDatagram::MapOk(nonce)) => assert_eq!(datagram, map_ok(nonce)),
        Ok(BaseDatagram::RecvData(id, data)) => {
            assert_eq!(datagram, [&relay::header(relay::RECV_DATA, id), data].concat());
        }
        Ok(BaseDatagram::RecvJoined(id, body)) => {
            assert_eq!(datagram, [&relay::header(relay::RECV_JOINED, id), body].concat());
        }
        Err(_) => {}
    }
    if let Ok(m) = NatConfirm::decode(datagram) {
        assert_eq!((m.encode().as_slice(), datagram.len()), (datagram, NAT_OK_LEN));
    }
    if let Ok(m) = UnverifiedNatInit::decode(datagram) {
        assert!(m.claim().own.iter().all(|&a| a == addr::canonical(a)));
        assert!(
            m.verify(&PublicKey([7; 32]), DeviceId::from_bytes([0; 14]), 0).is_none(),
            "nobody signed this"
        );
    }
    let mut message = datagram.to_vec();
    if relay::rewrite(&mut message, DeviceId::from_bytes([9; 14])).is_ok() {
        assert_eq!(message[relay::HEADER_LEN..], datagram[relay::HEADER_LEN..]);
    } else {
        assert_eq!(message, datagram);
    }
}

/// A datagram from another host: as it is, and with the magic before it.
pub fn peer(datagram: &[u8]) {
    for datagram in [datagram.to_vec(), [&MAGIC[..], datagram].concat()] {
        match PeerDatagram::decode(&datagram) {
            Ok(PeerDatagram::Data(data)) if peer::needs_escape(&datagram) => {
                assert_eq!(data, &datagram[PREFIX_LEN..]);
            }
            Ok(PeerDatagram::Data(data)) => assert_eq!(data, datagram),
            Ok(PeerDatagram::Joined { size, data }) => {
                let count = data.chunks(size).count();
                assert!((1..=MAX_JOINED).contains(&count), "{count} messages of {size} bytes");
                assert_eq!(data, &datagram[peer::JOINED_HEADER_LEN..]);
            }
            Ok(PeerDatagram::Hello(m)) => {
                assert!(!m.is_introduced_by(&IntroductionKey::NONE));
                let _ = m.is_introduced_by(&IntroductionKey([1; 16]));
                let _ = m.verify(&mut KnownKeys::default());
            }
            Ok(PeerDatagram::HelloReply(m)) => {
                let _ = m.verify(&mut KnownKeys::default());
            }
            Ok(PeerDatagram::UnknownSource) => assert_eq!(datagram, peer::unknown_source()),
            Ok(PeerDatagram::Knock) => assert_eq!(datagram, peer::knock()),
            Err(_) => {}
        }
    }
}

/// What came to the multicast group.
pub fn announce(datagram: &[u8]) {
    match announcement::decode(datagram) {
        Ok(id) => assert_eq!(id.as_bytes(), datagram),
        Err(_) => assert_ne!(datagram.len(), 14),
    }
}

/// What people type: device IDs and names of bases.
pub fn texts(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(id) = text.parse::<DeviceId>() {
        assert_eq!(id.to_string().parse(), Ok(id));
    }
    if let Ok(name) = text.parse::<BaseName>() {
        assert_eq!(name.to_string().parse().as_ref(), Ok(&name), "what is shown is what can be typed");
    }
}

/// A TCP stream that arrives in pieces: the first byte of each piece is its length.
pub fn stream(bytes: &[u8]) {
    let (mut input, mut cut, mut whole) = (Input(bytes), Frames::default(), Frames::default());
    let (mut from_cut, mut from_whole) = (Vec::new(), Vec::new());
    let mut lost = false;
    while !input.is_empty() {
        let piece = input.bytes();
        whole.buffer().extend_from_slice(piece);
        if lost {
            continue;
        }
        cut.buffer().extend_from_slice(piece);
        loop {
            match cut.next_frame() {
                Ok(Some(frame)) => from_cut.push(frame),
                Ok(None) => break,
                Err(_) => {
                    lost = true;
                    break;
                }
            }
        }
        assert!(lost || cut.buffer().len() < LENGTH_LEN + MAX_FRAME, "holds more than an unfinished frame");
    }
    while let Ok(Some(frame)) = whole.next_frame() {
        assert!((1..=MAX_FRAME).contains(&frame.len()));
        from_whole.push(frame);
    }
    assert_eq!(from_cut, from_whole);
    assert_eq!(whole.next_frame().is_err(), lost);
}
