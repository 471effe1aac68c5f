#!/usr/bin/env python3
"""Checks the test vectors without any code of the project: a second opinion, and an example of a second implementation.

Needs Python 3.9 or newer and the package `cryptography` (used to sign); verification is strict and done here in
plain integers. Run it from anywhere: it reads the files beside itself, prints one line a file, and exits 1 at the
first difference.
"""

import hashlib
import hmac
import ipaddress
import json
import pathlib
import sys
import unicodedata

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MAGIC = b"\x0bbowline"
FOLDER = pathlib.Path(__file__).resolve().parent


class Malformed(Exception):
    pass


# ---- Messages: (sender, type) -> name and fields, in the order of their bytes --------------------------------------

TCP = {
    ("host", 0x00): ("GET-COOKIE", [("=", b"bowline"), ("highest_version", "version"), ("capabilities", "u32")]),
    ("base", 0x01): ("BASE-HELLO", [("version", "u8"), ("cookie", 8), ("base_id", 14), ("cluster_id", 14), ("capabilities", "u32")]),
    ("host", 0x02): ("REGISTER", [("device_id", 14), ("public_key", 32), ("boot_id", 8), ("attempt", "u32"), ("capabilities", "u32"), ("agent", "text")]),
    ("base", 0x03): ("REGISTERED", [("seen", "addr"), ("keepalive_seconds", "u16"), ("udp_addresses", "list4")]),
    ("base", 0x0F): ("ERROR", [("code", "u8"), ("retry_after_seconds", "u16"), ("text", "text")]),
    ("host", 0x10): ("INFO", [("number", "u64"), ("introduction_master_key", 16), ("own_addresses", "list12")]),
    ("base", 0x11): ("PONG", [("number", "u64")]),
    ("host", 0x12): ("REQUEST-INFO", [("device_id", 14)]),
    ("host", 0x13): ("RELEASE-INFO", [("device_id", 14)]),
    ("base", 0x14): ("DEVICE-ADDRESSES", [("device_id", 14), ("flags", "two_flags32"), ("introduction_key", 16), ("reflexive", "list4"), ("own", "list12")]),
    ("base", 0x15): ("UNREACHABLE", [("device_id", 14), ("reason", "u8")]),
    ("base", 0x16): ("GOAWAY", [("seconds", "u16")]),
    ("base", 0x17): ("WANTED", [("device_id", 14)]),
    ("base", 0x18): ("NOTICE", [("code", "u8"), ("text", "text")]),
    ("host", 0x19): ("LEAVE", []),
    ("host", 0x20): ("SEND-DATA", [("destination_id", 14), ("data", "rest")]),
    ("base", 0x21): ("RECV-DATA", [("source_id", 14), ("data", "rest")]),
    ("host", 0x22): ("SEND-JOINED", [("destination_id", 14), ("size", "u16"), ("data", "joined")]),
    ("base", 0x23): ("RECV-JOINED", [("source_id", 14), ("size", "u16"), ("data", "joined")]),
}
UDP = {
    ("host", 0x30): ("NAT-INIT", [("cookie", 8), ("seq", "u64"), ("own_addresses", "list12"), ("signature", "sig"), ("padding", "pad")]),
    ("base", 0x31): ("NAT-OK", [("cookie", 8), ("seq", "u64"), ("challenge", 8), ("flags", "flags8"), ("seen", "addr"), ("padding", "pad")]),
    ("host", 0x32): ("NAT-CONFIRM", [("cookie", 8), ("seq", "u64"), ("challenge", 8), ("=", bytes(19))]),
    ("base", 0x33): ("NAT-UNKNOWN", []),
    ("host", 0x34): ("MAP-CHECK", [("cookie", 8), ("nonce", 8), ("address", "addr")]),
    ("base", 0x35): ("MAP-OK", [("nonce", 8)]),
    ("host", 0x20): TCP["host", 0x20],
    ("base", 0x21): TCP["base", 0x21],
    ("host", 0x22): TCP["host", 0x22],
    ("base", 0x23): TCP["base", 0x23],
}
PEER = {
    ("peer", 0x00): ("ESCAPED-DATA", [("data", "rest")]),
    ("peer", 0x01): ("HELLO", [("initiator_id", 14), ("responder_id", 14), ("public_key", 32), ("token", 16), ("introduction", 8), ("signature", "sig"), ("takes", "optional8"), ("padding", "pad")]),
    ("peer", 0x02): ("HELLO-REPLY", [("initiator_id", 14), ("responder_id", 14), ("public_key", 32), ("token", 16), ("signature", "sig")]),
    ("peer", 0x03): ("UNKNOWN-SOURCE", []),
    ("peer", 0x04): ("KNOCK", []),
    ("peer", 0x05): ("JOINED-DATA", [("size", "u16"), ("data", "joined")]),
}
RECORD = [("base_id", 14), ("incarnation", 8), ("boot_id", 8), ("attempt", "u32"), ("replaced", "boots4")]
HEADER = [("base_id", 14), ("incarnation", 8), ("number", "u64")]
WANT = [("asker_id", 14), ("revision", "u64"), ("about_id", 14), ("heard", "u64"), ("flags", "two_flags")]
PROBE = [("tag", 8), ("base_id", 14), ("nonce", 8), ("=", "tail")]
CLUSTER = {
    ("base", 0x40): ("BASE-DATA", [("destination_id", 14), ("tag", 8), ("carried", "relayed"), ("source_id", 14), ("data", "rest")]),
    ("base", 0x41): ("BASE-PING", PROBE),
    ("base", 0x42): ("BASE-PONG", PROBE),
    ("base", 0x50): ("LEASE", [("=", b"\x01"), ("base_id", 14), ("incarnation", 8), ("connection", "u32"), ("key", 16), ("udp_addresses", "list4")]),
    ("base", 0x51): ("RECORD", RECORD),
    ("base", 0x52): ("CHANGE", [("device_id", 14), ("revision", "u64"), ("record", "record")]),
    ("base", 0x53): ("WANTS", [("header", HEADER), ("wants", "wants256")]),
    ("base", 0x54): ("ADDRESSES", [("header", HEADER), ("to_id", 14), ("revision", "u64"), ("flags", "three_flags"), ("about_id", 14), ("introduction_key", 16), ("reflexive", "list4"), ("own", "list12")]),
    ("base", 0x55): ("BLOCKED", [("header", HEADER), ("sender_id", 14), ("destination_id", 14), ("reason", "u8")]),
    ("base", 0x56): ("NOT-HERE", [("header", HEADER), ("device_id", 14), ("sender_id", 14)]),
    ("base", 0x57): ("CLONED", [("header", HEADER), ("device_id", 14)]),
}
# BASE-PING and BASE-PONG are as long as the largest BASE-DATA that goes over UDP: its prefix, the RECV-DATA's header, 1,200 bytes.
PROBE_LENGTH = 1 + 14 + 8 + 1 + 14 + 1200
INTEGERS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "flags8": 1, "flags32": 4, "two_flags": 1, "two_flags32": 4, "three_flags": 1, "relayed": 1, "version": 1}


def put_addr(text):
    host, port = text.rsplit(":", 1)
    ip = ipaddress.ip_address(host.strip("[]"))
    packed = ip.packed if ip.version == 6 else bytes(10) + b"\xff\xff" + ip.packed
    return packed + int(port).to_bytes(2, "big")


def get_addr(data):
    ip = ipaddress.IPv6Address(data[:16])
    shown = str(ip.ipv4_mapped) if ip.ipv4_mapped else f"[{ip}]"
    return f"{shown}:{int.from_bytes(data[16:], 'big')}"


def encode_fields(fields, values):
    return b"".join(encode_field(kind, None if name == "=" else values[name]) for name, kind in fields)


def encode_field(kind, value):
    if isinstance(kind, list):
        return encode_fields(kind, value)
    if kind == "record":
        return bytes(1) if value is None else b"\x01" + encode_fields(RECORD, value)
    if kind == "wants256":
        return len(value).to_bytes(2, "big") + b"".join(encode_fields(WANT, want) for want in value)
    if kind == "boots4":
        return bytes([len(value)]) + b"".join(map(unhex, value))
    if kind == "tail":
        return bytes(PROBE_LENGTH - 1 - 8 - 14 - 8)
    if isinstance(kind, bytes):
        return kind
    if isinstance(kind, int):
        raw = bytes.fromhex(value)
        assert len(raw) == kind
        return raw
    if kind in INTEGERS:
        return int(value).to_bytes(INTEGERS[kind], "big")
    if kind == "addr":
        return put_addr(value)
    if kind.startswith("list"):
        return bytes([len(value)]) + b"".join(map(put_addr, value))
    if kind == "text":
        raw = value.encode()
        return bytes([len(raw)]) + raw
    if kind in ("rest", "sig", "joined"):
        return bytes.fromhex(value)
    if kind == "optional8":
        return b"" if value is None else bytes([value])
    assert kind == "pad"
    return bytes(value)


def decode_field(kind, take, left):
    if isinstance(kind, list):
        return {name: decode_field(kind, take, left) for name, kind in kind}
    if kind == "record":
        return decode_field(RECORD, take, left) if take(1)[0] else None
    if kind == "wants256":
        count = int.from_bytes(take(2), "big")
        if count > 256:
            raise Malformed("more statements than there may be")
        return [decode_field(WANT, take, left) for _ in range(count)]
    if kind == "boots4":
        count = take(1)[0]
        if count > 4:
            raise Malformed("more boots than there may be")
        return [take(8).hex() for _ in range(count)]
    if kind == "tail":
        return take(PROBE_LENGTH - 1 - 8 - 14 - 8)
    if isinstance(kind, bytes):
        if take(len(kind)) != kind:
            raise Malformed("fixed part")
        return None
    if isinstance(kind, int):
        return take(kind).hex()
    if kind in INTEGERS:
        value = int.from_bytes(take(INTEGERS[kind]), "big")
        if kind == "version" and value == 0:
            raise Malformed("version 0")
        if kind == "relayed" and value not in (0x21, 0x23):
            raise Malformed("not what a base relays")
        if kind.startswith("two_flags"):
            return value & 3
        if kind == "three_flags":
            return value & 7
        if kind.startswith("flags"):
            return value & 1
        return str(value) if kind == "u64" else value
    if kind == "addr":
        return get_addr(take(18))
    if kind.startswith("list"):
        count = take(1)[0]
        if count > int(kind[4:]):
            raise Malformed("list over its limit")
        return [get_addr(take(18)) for _ in range(count)]
    if kind == "text":
        raw = take(take(1)[0])
        try:
            value = raw.decode()
        except UnicodeDecodeError as error:
            raise Malformed("not UTF-8") from error
        if any(unicodedata.category(c) == "Cc" for c in value):
            raise Malformed("control character")
        return value
    if kind == "rest":
        return take(left()).hex()
    if kind == "joined":
        return take(left()).hex()
    if kind == "optional8":
        return take(1)[0] & 1 if left() else None
    if kind == "sig":
        return take(64).hex()
    assert kind == "pad"
    return len(take(left()))


def decode_body(fields, body, exact):
    """The fields, and where the signature (if any) begins and ends."""
    at = 0

    def take(count):
        nonlocal at
        if at + count > len(body):
            raise Malformed("too short")
        at += count
        return body[at - count : at]

    values = {}
    signature = None
    for name, kind in fields:
        value = decode_field(kind, take, lambda: len(body) - at)
        if kind == "sig":
            signature = at - 64
        elif name != "=":
            values[name] = value
    if exact and at != len(body):
        raise Malformed("too long")
    if "size" in values:
        count = len(values["data"]) // 2
        if count == 0 or count > 64 * values["size"]:
            raise Malformed("no message, or too many")
    return values, signature


class UnknownType(Exception):
    pass


class WrongSide(Exception):
    pass


def lookup(table, sender, kind):
    if (sender, kind) in table:
        return table[sender, kind]
    raise WrongSide if any(key[1] == kind for key in table) else UnknownType


def decode(family, sender, data):
    """Name, fields, what the message's own bytes contribute to `signed`, signature."""
    if family == "announce":
        if len(data) != 14:
            raise Malformed("length")
        return "ANNOUNCEMENT", {"device_id": data.hex()}, None, None
    if family == "tcp":
        length = int.from_bytes(data[:2], "big")
        if not 1 <= length <= 16384:
            raise Malformed("frame length")
        frame = data[2:]
        assert len(frame) == length
        name, fields = lookup(TCP, sender, frame[0])
        if name != "REGISTER":
            return name, decode_body(fields, frame[1:], False)[0], None, None
        if len(frame) < 65:
            raise Malformed("too short")
        return name, decode_body(fields, frame[1:-64], False)[0], frame[:-64], frame[-64:]
    if family == "cluster":
        if not data:
            raise Malformed("empty")
        name, fields = lookup(CLUSTER, sender, data[0])
        # What follows the fields of other messages is for later versions.
        return name, decode_body(fields, data[1:], fields is PROBE)[0], None, None
    if family == "udp":
        if not data:
            raise Malformed("empty")
        name, fields = lookup(UDP, sender, data[0])
        front = 1
    else:
        if not data or data == MAGIC:
            raise Malformed("empty or bare magic")
        if not data.startswith(MAGIC):
            return "DATA", {"data": data.hex()}, None, None
        name, fields = lookup(PEER, sender, data[8])
        front = 9
    values, signature = decode_body(fields, data[front:], True)
    if signature is None:
        return name, values, None, None
    at = front + signature
    return name, values, data[:at], data[at : at + 64]


def encode(family, vector):
    values = dict(vector["fields"])
    if "signing" in vector:
        values["signature"] = vector["signing"]["signature"]
    name, sender = vector["message"], vector["from"]
    if family == "announce":
        return bytes.fromhex(values["device_id"])
    if name == "DATA":
        return bytes.fromhex(values["data"])
    table = {"tcp": TCP, "udp": UDP, "peer": PEER, "cluster": CLUSTER}[family]
    ((kind, fields),) = [(key[1], entry[1]) for key, entry in table.items() if entry[0] == name and key[0] == sender]
    body = encode_fields(fields, values)
    if name == "REGISTER":
        body += bytes.fromhex(values["signature"])
    if family == "tcp":
        return (len(body) + 1).to_bytes(2, "big") + bytes([kind]) + body
    return (MAGIC if family == "peer" else b"") + bytes([kind]) + body


# ---- Ed25519, strict, in plain integers (RFC 8032) -----------------------------------------------------------------

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def point(data):
    value = int.from_bytes(data, "little")
    sign, y = value >> 255, value & (2**255 - 1)
    if y >= P:
        return None
    xx = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(xx, (P + 3) // 8, P)
    if (x * x - xx) % P:
        x = x * SQRT_M1 % P
    if (x * x - xx) % P or (x == 0 and sign):
        return None
    return ((P - x) % P if x & 1 != sign else x, y)


def add(one, two):
    (a, b), (c, e) = one, two
    t = D * a * c * b * e % P
    return ((a * e + c * b) * pow(1 + t, P - 2, P) % P, (b * e + a * c) * pow(1 - t, P - 2, P) % P)


def mul(scalar, base):
    result = (0, 1)
    while scalar:
        if scalar & 1:
            result = add(result, base)
        base = add(base, base)
        scalar >>= 1
    return result


B = point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verify(public_key, message, signature):
    a, r = point(public_key), point(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L or mul(8, a) == (0, 1) or mul(8, r) == (0, 1):
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public_key + message).digest(), "little") % L
    return mul(s, B) == add(r, mul(k, a))


# ---- IDs and introductions -----------------------------------------------------------------------------------------

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def device_id(public_key):
    return hashlib.sha256(b"bowline device id v1" + public_key).digest()[:14]


def check_byte(identity):
    return hashlib.sha256(b"bowline id check v1" + identity).digest()[:1]


def id_text(identity):
    value = int.from_bytes(identity + check_byte(identity), "big")
    digits = "".join(ALPHABET[value >> 5 * (23 - i) & 31] for i in range(24))
    return "-".join(digits[i : i + 4] for i in range(0, 24, 4))


def parse_id(text):
    digits = [c.lower() for c in text if c != "-"]
    digits = [{"o": "0", "i": "1", "l": "1"}.get(c, c) for c in digits]
    if len(digits) != 24 or any(c not in ALPHABET for c in digits):
        return None
    value = 0
    for c in digits:
        value = value << 5 | ALPHABET.index(c)
    raw = value.to_bytes(15, "big")
    return raw[:14] if check_byte(raw[:14]) == raw[14:] else None


def siphash_2_4(key, data):
    mask = 2**64 - 1
    k0, k1 = (int.from_bytes(key[i : i + 8], "little") for i in (0, 8))
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def turn(x, bits):
        return (x << bits | x >> 64 - bits) & mask

    def rounds(count):
        for _ in range(count):
            v[0] = (v[0] + v[1]) & mask
            v[1] = turn(v[1], 13) ^ v[0]
            v[0] = turn(v[0], 32)
            v[2] = (v[2] + v[3]) & mask
            v[3] = turn(v[3], 16) ^ v[2]
            v[0] = (v[0] + v[3]) & mask
            v[3] = turn(v[3], 21) ^ v[0]
            v[2] = (v[2] + v[1]) & mask
            v[1] = turn(v[1], 17) ^ v[2]
            v[2] = turn(v[2], 32)

    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) & 0xFF])
    for i in range(0, len(padded), 8):
        word = int.from_bytes(padded[i : i + 8], "little")
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xFF
    rounds(4)
    return (v[0] ^ v[1] ^ v[2] ^ v[3]).to_bytes(8, "little")


def introduction_key(master, initiator):
    return hmac.new(master, b"bowline/1 introduction\0" + initiator, hashlib.sha256).digest()[:16]


# ---- The files -----------------------------------------------------------------------------------------------------


def unhex(text):
    return bytes.fromhex(text)


def expect(condition, *what):
    if not condition:
        sys.exit("differs: " + " / ".join(map(str, what)))


def check_keys(file):
    for name, key in file["keys"].items():
        public = Ed25519PrivateKey.from_private_bytes(unhex(key["seed"])).public_key().public_bytes_raw()
        identity = device_id(public)
        expect(public.hex() == key["public_key"], name, "public key")
        expect(identity.hex() == key["id"], name, "ID")
        expect(check_byte(identity).hex() == key["check_byte"], name, "check byte")
        expect(id_text(identity) == key["text"] and parse_id(key["text"]) == identity, name, "text")
        expect(ipaddress.ip_address(b"\xfd\xb0" + identity) == ipaddress.ip_address(key["ipv6"]), name, "IPv6 form")


def to_sign(signing, body):
    front = b"bowline/1 " + signing["context"].encode() + b"\0"
    front += unhex(signing.get("base_id", "")) + unhex(signing.get("cookie", ""))
    if "udp_index" in signing:
        front += bytes([signing["udp_index"]])
    return front + body


def signature_holds(file, signing, name, fields, body, signature):
    """Whether a receiver takes it: for all but NAT-INIT the key is in the message and must make the sender's ID."""
    if name == "NAT-INIT":
        key = unhex(file["keys"][signing["signer"]]["public_key"])
    else:
        key = unhex(fields["public_key"])
        owner = {"REGISTER": "device_id", "HELLO": "initiator_id", "HELLO-REPLY": "responder_id"}[name]
        if device_id(key).hex() != fields[owner]:
            return False
    return verify(key, to_sign(signing, body), signature)


def to_tag(name, data, fields):
    if name == "BASE-DATA":
        return unhex(fields["source_id"]) + unhex(fields["destination_id"])
    return data[:1] + unhex(fields["base_id"]) + unhex(fields["nonce"])


def tag_holds(vector, name, data, fields, label):
    """Whether a base whose key is the one of `tagging` takes the message for one of its cluster."""
    tagged = to_tag(name, data, fields)
    expect(tagged.hex() == vector["tagging"]["tagged"], *label, "what is tagged")
    # The hash is a number; here it is in network byte order.
    return siphash_2_4(unhex(vector["tagging"]["key"]), tagged)[::-1].hex() == fields["tag"]


def check_message(file, family, vector, exact):
    label = (family, vector["message"], vector["name"])
    data = unhex(vector["bytes"])
    name, fields, body, signature = decode(family, vector["from"], data)
    expect((name, fields) == (vector["message"], vector["fields"]), *label, "decoding")
    expect((encode(family, vector) == data) == exact, *label, "encoding")
    if "tagging" in vector:
        expect(tag_holds(vector, name, data, fields, label), *label, "tag")
    signing = vector.get("signing")
    expect((signing is None) == (signature is None), *label, "signed or not")
    if signing is None:
        return
    expect(to_sign(signing, body).hex() == signing["signed"], *label, "what is signed")
    key = Ed25519PrivateKey.from_private_bytes(unhex(file["keys"][signing["signer"]]["seed"]))
    expect(key.sign(unhex(signing["signed"])).hex() == signing["signature"] == signature.hex(), *label, "signature")
    expect(signature_holds(file, signing, name, fields, body, signature), *label, "verification")
    if name == "HELLO":
        secret = unhex(signing["introduction_key"])
        made = siphash_2_4(secret, data[: 9 + 14 + 14 + 32 + 16]) if any(secret) else bytes(8)
        expect(made.hex() == fields["introduction"], *label, "introduction")


def check_refused(file, family, refused):
    label = (family, "refused", refused["name"])
    try:
        name, fields, body, signature = decode(family, refused["from"], unhex(refused["bytes"]))
    except (Malformed, WrongSide, UnknownType) as error:
        reason = {Malformed: "malformed", WrongSide: "wrong-side", UnknownType: "unknown-type"}[type(error)]
        expect(reason == refused["why"], *label, reason)
        return
    if "tagging" in refused:
        expect(refused["why"] == "tag", *label, "is well-formed")
        expect(not tag_holds(refused, name, unhex(refused["bytes"]), fields, label), *label, "its tag holds")
        return
    expect(refused["why"] == "signature", *label, "is well-formed")
    signing = refused["signing"]
    expect(to_sign(signing, body).hex() == signing["signed"], *label, "what is signed")
    expect(signature.hex() == signing["signature"], *label, "signature")
    expect(not signature_holds(file, signing, name, fields, body, signature), *label, "verifies")


def check_identity(file):
    for text in file["texts"]:
        expect(parse_id(text["text"]) == unhex(text["id"]), text["name"])
    for text in file["refused_texts"]:
        expect(parse_id(text["text"]) is None, text["name"])
    for holds, entries in ((True, file["signatures"]), (False, file["refused_signatures"])):
        for entry in entries:
            signed = to_sign({"context": entry["context"]}, unhex(entry["message"]))
            expect(signed.hex() == entry["signed"], entry["name"], "what is signed")
            expect(verify(unhex(entry["public_key"]), signed, unhex(entry["signature"])) == holds, entry["name"])
    for entry in file["introduction_keys"]:
        key = introduction_key(unhex(entry["master_key"]), unhex(entry["initiator_id"]))
        expect(key.hex() == entry["introduction_key"], "introduction key")
        expect(siphash_2_4(key, unhex(entry["hello_front"])).hex() == entry["introduction"], "introduction")


def main():
    # The reference code's own vector: key 00…0f, message 00…0e.
    assert siphash_2_4(bytes(range(16)), bytes(range(15))).hex() == "e545be4961ca29a1"
    for family in ("identity", "tcp", "udp", "peer", "announce", "cluster"):
        file = json.loads((FOLDER / f"{family}.json").read_text())
        check_keys(file)
        if family == "identity":
            check_identity(file)
            count = sum(len(v) for k, v in file.items() if isinstance(v, list) and k != "about")
        else:
            for vector in file["messages"]:
                check_message(file, family, vector, True)
            for vector in file["tolerated"]:
                check_message(file, family, vector, False)
            for refused in file["refused"]:
                check_refused(file, family, refused)
            count = len(file["messages"]) + len(file["tolerated"]) + len(file["refused"])
        print(f"{family}: {count} vectors hold")


if __name__ == "__main__":
    main()
