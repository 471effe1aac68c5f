//! `announce.json`: the datagram of protocol section 10.

use super::{ALICE, Maker};
use crate::vectors_support::{
    codec::Family,
    file::{MessageFile, Sender, Why},
    message::Message,
};

pub(super) fn file() -> MessageFile {
    let mut m = Maker::new(
        Family::Announce,
        &[
            "bowline protocol 1, local link.",
            "The whole content of a datagram from a link-local unicast address, hop limit 255, to ff02:88bb:31e4:95f7:2b87:6b52:e112:19ac, port 4478.",
        ],
    );
    let device_id = m.id(ALICE);
    let bytes = m.plain("I am here", Sender::Link, Message::Announcement { device_id });
    m.refused("empty", Sender::Link, Why::Malformed, &[]);
    m.refused("one byte short", Sender::Link, Why::Malformed, &bytes[..13]);
    m.refused("one byte more", Sender::Link, Why::Malformed, &[&bytes[..], &[0]].concat());
    m.file
}
