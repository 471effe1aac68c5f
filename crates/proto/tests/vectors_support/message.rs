//! Every message with its fields, as the vector files show them: a mirror of the wire types made for reading.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::file::{Hex, decimal};

/// The fields of a RECORD, alone or in a CHANGE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RecordFields {
    pub(crate) base_id: Hex,
    pub(crate) incarnation: Hex,
    pub(crate) boot_id: Hex,
    pub(crate) attempt: u32,
    pub(crate) replaced: Vec<Hex>,
}

/// One statement of a WANTS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct WantFields {
    pub(crate) asker_id: Hex,
    #[serde(with = "decimal")]
    pub(crate) revision: u64,
    pub(crate) about_id: Hex,
    #[serde(with = "decimal")]
    pub(crate) heard: u64,
    pub(crate) flags: u8,
}

/// What every message on a base's subject begins with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct HeaderFields {
    pub(crate) base_id: Hex,
    pub(crate) incarnation: Hex,
    #[serde(with = "decimal")]
    pub(crate) number: u64,
}

/// A message. Signatures are not among the fields; they stand beside them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", content = "fields", rename_all = "SCREAMING-KEBAB-CASE")]
pub(crate) enum Message {
    GetCookie {
        highest_version: u8,
        capabilities: u32,
    },
    BaseHello {
        version: u8,
        cookie: Hex,
        base_id: Hex,
        cluster_id: Hex,
        capabilities: u32,
    },
    Register {
        device_id: Hex,
        public_key: Hex,
        boot_id: Hex,
        attempt: u32,
        capabilities: u32,
        agent: String,
    },
    Registered {
        seen: SocketAddr,
        keepalive_seconds: u16,
        udp_addresses: Vec<SocketAddr>,
    },
    Error {
        code: u8,
        retry_after_seconds: u16,
        text: String,
    },
    Info {
        #[serde(with = "decimal")]
        number: u64,
        introduction_master_key: Hex,
        own_addresses: Vec<SocketAddr>,
    },
    Pong {
        #[serde(with = "decimal")]
        number: u64,
    },
    RequestInfo {
        device_id: Hex,
    },
    ReleaseInfo {
        device_id: Hex,
    },
    DeviceAddresses {
        device_id: Hex,
        flags: u32,
        introduction_key: Hex,
        reflexive: Vec<SocketAddr>,
        own: Vec<SocketAddr>,
    },
    Unreachable {
        device_id: Hex,
        reason: u8,
    },
    #[serde(rename = "GOAWAY")]
    GoAway {
        seconds: u16,
    },
    Wanted {
        device_id: Hex,
    },
    Notice {
        code: u8,
        text: String,
    },
    Leave {},
    SendData {
        destination_id: Hex,
        data: Hex,
    },
    RecvData {
        source_id: Hex,
        data: Hex,
    },
    SendJoined {
        destination_id: Hex,
        size: u16,
        data: Hex,
    },
    RecvJoined {
        source_id: Hex,
        size: u16,
        data: Hex,
    },
    NatInit {
        cookie: Hex,
        #[serde(with = "decimal")]
        seq: u64,
        own_addresses: Vec<SocketAddr>,
        padding: usize,
    },
    NatOk {
        cookie: Hex,
        #[serde(with = "decimal")]
        seq: u64,
        challenge: Hex,
        flags: u8,
        seen: SocketAddr,
        padding: usize,
    },
    NatConfirm {
        cookie: Hex,
        #[serde(with = "decimal")]
        seq: u64,
        challenge: Hex,
    },
    NatUnknown {},
    MapCheck {
        cookie: Hex,
        nonce: Hex,
        address: SocketAddr,
    },
    MapOk {
        nonce: Hex,
    },
    Data {
        data: Hex,
    },
    EscapedData {
        data: Hex,
    },
    Hello {
        initiator_id: Hex,
        responder_id: Hex,
        public_key: Hex,
        token: Hex,
        introduction: Hex,
        takes: Option<u8>,
        padding: usize,
    },
    HelloReply {
        initiator_id: Hex,
        responder_id: Hex,
        public_key: Hex,
        token: Hex,
    },
    JoinedData {
        size: u16,
        data: Hex,
    },
    UnknownSource {},
    Knock {},
    Announcement {
        device_id: Hex,
    },
    Lease {
        base_id: Hex,
        incarnation: Hex,
        connection: u32,
        key: Hex,
        udp_addresses: Vec<SocketAddr>,
    },
    Record(RecordFields),
    Change {
        device_id: Hex,
        #[serde(with = "decimal")]
        revision: u64,
        record: Option<RecordFields>,
    },
    Wants {
        header: HeaderFields,
        wants: Vec<WantFields>,
    },
    Addresses {
        header: HeaderFields,
        to_id: Hex,
        #[serde(with = "decimal")]
        revision: u64,
        flags: u8,
        about_id: Hex,
        introduction_key: Hex,
        reflexive: Vec<SocketAddr>,
        own: Vec<SocketAddr>,
    },
    Blocked {
        header: HeaderFields,
        sender_id: Hex,
        destination_id: Hex,
        reason: u8,
    },
    NotHere {
        header: HeaderFields,
        device_id: Hex,
        sender_id: Hex,
    },
    Cloned {
        header: HeaderFields,
        device_id: Hex,
    },
    BaseData {
        destination_id: Hex,
        tag: Hex,
        carried: u8,
        source_id: Hex,
        data: Hex,
    },
    BasePing {
        tag: Hex,
        base_id: Hex,
        nonce: Hex,
    },
    BasePong {
        tag: Hex,
        base_id: Hex,
        nonce: Hex,
    },
}
