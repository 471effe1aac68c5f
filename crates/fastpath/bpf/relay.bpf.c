// SPDX-License-Identifier: MIT OR GPL-2.0-only
//
// The fast path of a base: plain messages between devices on UDP, forwarded where the network card hands them over.
//
// SEND-DATA becomes RECV-DATA (SEND-JOINED becomes RECV-JOINED) by rewriting 15 bytes, so a message needs a new header and new addresses,
// and nothing of the socket's way: no queue, no wake-up, no copy. What this program does not know, does not like, or cannot send by itself
// goes on to the sockets as if there were no program. It drops nothing but messages of a device that has had relayed what it may, as the
// sockets would.
//
// The maps are a copy of the base's table (`bowline_proto::base::Follower`). The base alone writes them, but for what is said to be the
// program's. IPs are IPv6 addresses, those of IPv4 mapped (RFC 4291 section 2.5.5.2). Little endian: the bytes of a message are taken eight
// at a time.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define AF_INET 2
#define AF_INET6 10
#define DROP TC_ACT_SHOT
#define NEXT TC_ACT_UNSPEC /* to whoever else looks at packets here, and then to the sockets */
#define LOOPBACK 1	   /* its number in every network namespace; a way looked up from there is that of the machine's own packets */

#define SEND_DATA 0x20
#define SEND_JOINED 0x22
#define RELAYED 0x01 /* makes RECV-… of SEND-… */
#define HEADER_LEN 15

#define DO_NOT_FRAGMENT 0x4000
#define FRAGMENT 0x3fff /* more fragments, or an offset */
#define HOPS 64
#define MOST_SEGMENTS 128 /* UDP_MAX_SEGMENTS of Linux 6.9; 64 before */
#define MOST_LOCALS 16
#define SECOND 1000000000
#define EPOCH 27 /* a way that was found counts for so many bits of nanoseconds: 134 ms */
#define HEARD 20 /* so many bits of nanoseconds are one in `heard`, and so many bits of that are of the seal */
#define TOLD 10000000 /* so often a source's packet that is over the rate goes on to the sockets: ns */
#define TRIES 8	      /* to take something of a budget that others take of */
#define SEAL 0x9e3779b97f4a7c15

typedef struct {
	__u64 half[2];
} ip_t;

/* What stands before the data: type, device ID, and a byte that is zero. */
typedef struct {
	__u64 half[2];
} header_t;

/* Where the base is reached, and by which of its sockets; the first without a port ends the list. */
struct local {
	ip_t ip;
	__be16 port;
	__be16 socket;
	__u32 unused;
};

struct locals {
	struct local list[MOST_LOCALS];
};

/* As `bowline_proto::base::SourceKey`. */
struct source_key {
	ip_t ip;
	__be16 port;
	__be16 socket;
	__be32 scope;
};

struct source {
	header_t header; /* of RECV-DATA from that device */
	__u64 budget;	 /* its number */
	__u64 seal;	 /* of the key and all before */
	/* The program's. */
	__u64 heard; /* CLOCK_MONOTONIC, in its units, below bits of the seal */
	__u64 told;  /* CLOCK_MONOTONIC, ns: when a packet that was over the rate went on to the sockets */
};

/* The way that was found last. Cores write it without a lock. */
struct way {
	__u64 destination; /* MAC address */
	__u64 origin;	   /* the same */
	__u32 interface;
	__u32 mtu;
	__u64 seal; /* of the leg's seal, the epoch, and all before */
};

/* Found by the header of a message to that device, with type 0. */
struct leg {
	ip_t from;
	ip_t to;
	__be16 from_port;
	__be16 to_port;
	__u32 limit; /* bytes of data */
	__u64 until;	/* CLOCK_MONOTONIC, ns */
	__u64 seal;	/* of the key and all before */
	struct way way; /* the program's */
};

/* What a device may still have relayed: when all of it would be there again. Those who forward count in it, this program and the workers,
   in whose memory it is, too. Zero when the base gives it to a device. */
struct budget {
	__u64 messages_full_at;
	__u64 units_full_at;
};

/* What every device may have relayed, in nanoseconds each; zero: as much as it wants. The base says so before this is loaded, and the kernel
   leaves out what counts where nothing is to be counted. */
struct limits {
	__u64 start; /* CLOCK_MONOTONIC, ns: moments in budgets are since then */
	__u64 message_every;
	__u64 messages; /* all that can be there */
	__u64 unit_every;
	__u64 units;	/* the same */
	__u64 unit_log; /* so many bits of bytes of data are a unit: each message has one more than it fills */
};

struct counts {
	__u64 messages;
	__u64 bytes;	 /* of data */
	__u64 over_rate; /* messages that were dropped */
	__u64 no_way;	 /* the routing table or the neighbour table had none, or the packet is too large for it */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, struct locals);
	__uint(max_entries, 1);
} locals SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct source_key);
	__type(value, struct source);
	__uint(max_entries, 1); /* the base says how many */
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, header_t);
	__type(value, struct leg);
	__uint(max_entries, 1); /* the base says how many */
} legs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__type(key, __u32);
	__type(value, struct counts);
	__uint(max_entries, 1);
} counted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct budget);
	__uint(max_entries, 1); /* the base says how many */
} budgets SEC(".maps");

const volatile struct limits limits = {};

/* A message, and what has been found out about it. */
struct message {
	header_t sent;
	header_t relayed;
	ip_t source;
	ip_t local;
	__be16 ports[2]; /* as it came */
	__u32 at;	 /* where it starts in the packet */
	__u32 segment;	 /* bytes of each datagram's payload, but the last one's */
	__u32 datagrams; /* more than one where the card or the kernel has merged some */
	__u32 budget;	 /* of the sender, who is here in the table: */
	struct source *sender;
};

/* All headers of a packet, as they lie in it from `eth` to the end of `message`. */
struct headers_ipv4 {
	__u8 align[2];
	struct ethhdr eth;
	struct iphdr ip;
	struct udphdr udp;
	__u32 message[4];
} __attribute__((aligned(8)));

struct headers_ipv6 {
	__u8 align[2];
	struct ethhdr eth;
	struct ipv6hdr ip;
	struct udphdr udp;
	__u32 message[4];
} __attribute__((aligned(8)));

#define OFFSET(headers, member) (__builtin_offsetof(headers, member) - __builtin_offsetof(headers, eth))
#define LENGTH(headers) (OFFSET(headers, message) + HEADER_LEN)

static const __u32 only = 0; /* key of what there is one of */

/* From anywhere in the packet: wherever a kernel has such programs compiled for speed, it reads words from odd places, too. */
static __always_inline __u64 word(const void *at)
{
	return *(const __u64 *)at;
}

static __always_inline __u32 half_word(const void *at)
{
	return *(const __u32 *)at;
}

static __always_inline ip_t ip_at(const void *at)
{
	ip_t ip = { .half = { word(at), word(at + 8) } };
	return ip;
}

static __always_inline ip_t mapped(__be32 v4)
{
	ip_t ip = { .half = { 0, 0xffff0000 | (__u64)v4 << 32 } };
	return ip;
}

static __always_inline int is_mapped(const ip_t *ip)
{
	return ip->half[0] == 0 && (__u32)ip->half[1] == 0xffff0000;
}

/* Seals: what a core reads of a map is whole, and what it looked for.

   The kernel uses an element of a hash table that was taken out again at once, for whatever goes in next, while another core may still read
   it, or write to it: a core of a virtual machine may stand still there for long. So what counts is a copy that fits its seal, a sum of all
   its words and those of its key. One that has become another's on the way does not, in whatever order the other's words came, on whatever
   machine; nor does a way that two cores have written at once, or one that a core has written into another's leg, which knows no such
   seal. (By chance one of 2^64 does. Nobody else than the base and this program writes seals.) */

typedef __u64 __attribute__((may_alias)) word_t;

#define WORDS(type, member) (__builtin_offsetof(type, member) / 8) /* those before it */

/* Each word once, so that what was judged is what is used. */
static __always_inline void copy(void *to, const void *from, int words)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < words; i++)
		((word_t *)to)[i] = ((const volatile word_t *)from)[i];
}

static __always_inline void copy_out(void *to, const void *from, int words)
{
#pragma clang loop unroll(full)
	for (int i = 0; i < words; i++)
		((volatile word_t *)to)[i] = ((const word_t *)from)[i];
}

static __always_inline __u64 seal(const void *key, int key_words, const void *value, int words)
{
	__u64 sum = 0, factor = SEAL;
#pragma clang loop unroll(full)
	for (int i = 0; i < key_words + words; i++) {
		sum += factor * (i < key_words ? ((const word_t *)key)[i] : ((const word_t *)value)[i - key_words]);
		factor *= SEAL;
	}
	return sum;
}

/* Sums of the Internet checksum (RFC 1071), of any number of words. */
static __always_inline __u64 sum2(const __u64 *words)
{
	return (words[0] & 0xffffffff) + (words[0] >> 32) + (words[1] & 0xffffffff) + (words[1] >> 32);
}

static __always_inline __u32 fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (sum & 0xffffffff) + (sum >> 32);
}

static __always_inline __u16 fold16(__u64 sum)
{
	__u32 folded = fold32(sum);
	folded = (folded & 0xffff) + (folded >> 16);
	return (folded & 0xffff) + (folded >> 16);
}

/* What a sum changes by when these words come instead of those. */
#define COUNT_OUT(words, sum) (((__u64)(words) << 32) - (words) - (sum)) /* the sum of their complements */

static __always_inline int read_message(struct __sk_buff *skb, struct message *m, const struct udphdr *udp, const void *header)
{
	m->sent.half[0] = word(header);
	m->sent.half[1] = word(header + HEADER_LEN - 8) >> 8;
	__u8 type = m->sent.half[0];
	if (type != SEND_DATA && type != SEND_JOINED)
		return 0;
	m->ports[0] = udp->source;
	m->ports[1] = udp->dest;
	/* What came after the datagram would be sent on unread. */
	__u32 length = skb->len - m->at;
	if (bpf_ntohs(udp->len) != length + sizeof(*udp))
		return 0;
	/* Counted here: a virtual machine does not say how many it has merged, and the kernel's number is 0 then. */
	m->segment = skb->gso_size ?: length;
	m->datagrams = skb->gso_size ? (length + m->segment - 1) / m->segment : 1;
	return m->segment >= HEADER_LEN && m->datagrams <= MOST_SEGMENTS && m->ports[0] != 0;
}

static __always_inline int is_same(const ip_t *one, const ip_t *other)
{
	return one->half[0] == other->half[0] && one->half[1] == other->half[1];
}

/* Which of the base's sockets the message is for, in the order of the network; -1: none. From an address of its own nothing comes in, or
   somebody speaks for a device on this machine. */
static __always_inline int socket_of(const struct message *m)
{
	const struct locals *known = bpf_map_lookup_elem(&locals, &only);
	int socket = -1;
	if (!known)
		return -1;
#pragma clang loop unroll(disable)
	for (int i = 0; i < MOST_LOCALS; i++) {
		const struct local *local = &known->list[i];
		if (local->port == 0)
			break;
		if (is_same(&local->ip, &m->source))
			return -1;
		if (local->port == m->ports[1] && is_same(&local->ip, &m->local))
			socket = local->socket;
	}
	return socket;
}

/* By the table: where the message goes, and from whom it is. Gives back where the leg is in the table, which is for its way alone. */
static __always_inline struct leg *judge(struct message *m, struct leg *leg, __u64 now)
{
	int socket = socket_of(m);
	if (socket < 0)
		return 0;
	struct source_key key = { .ip = m->source, .port = m->ports[0], .socket = socket };
	struct source source, *found = bpf_map_lookup_elem(&sources, &key);
	if (!found)
		return 0;
	copy(&source, found, sizeof(source) / 8);
	if (source.seal != seal(&key, sizeof(key) / 8, &source, WORDS(struct source, seal)))
		return 0;
	header_t to = { .half = { m->sent.half[0] & ~0xffULL, m->sent.half[1] } };
	struct leg *kept = bpf_map_lookup_elem(&legs, &to);
	if (!kept)
		return 0;
	copy(leg, kept, sizeof(*leg) / 8);
	if (leg->seal != seal(&to, sizeof(to) / 8, leg, WORDS(struct leg, seal)))
		return 0;
	if (m->segment - HEADER_LEN > leg->limit || now >= leg->until)
		return 0;
	/* Written once in a while, so that the cores that one device's datagrams come by do not wait for one another. By its bits of the seal
	   the base sees whether this still was the device's. */
	__u64 heard = now >> HEARD | source.seal >> (64 - HEARD) << (64 - HEARD);
	if (heard - source.heard > SECOND >> HEARD)
		copy_out(&found->heard, &heard, 1);
	m->relayed.half[0] = (source.header.half[0] & ~0xffULL) | (m->sent.half[0] & 0xff) | RELAYED;
	m->relayed.half[1] = source.header.half[1];
	m->budget = source.budget;
	m->sender = found;
	return kept;
}

/* Whether all datagrams of a merged packet are for the same device. The packet is one piece then.

   A list of packets (rx-gro-list) must stay one, and stays as it came: made one piece, kernels without commit a1e40ac5b5e9 of Linux 6.12 crash
   when they send it on. Its datagrams have each a checksum that was found right; of those that are really merged one is left to be made.
   (A list whose checksums are left to be made, as of virtual machines on this one, looks as if it were no list.) */
static __always_inline int all_alike(struct __sk_buff *skb, const struct message *m)
{
	if (bpf_csum_level(skb, BPF_CSUM_LEVEL_QUERY) >= 0 || bpf_csum_update(skb, 0) >= 0 || bpf_skb_pull_data(skb, skb->len))
		return 0;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u32 at = m->at;
#pragma clang loop unroll(disable)
	for (int i = 0; i < MOST_SEGMENTS; i++) {
		if (i >= m->datagrams)
			break;
		if (at > 0xffff - HEADER_LEN)
			return 0;
		const void *header = data + at;
		if (header + HEADER_LEN > end || word(header) != m->sent.half[0] || word(header + HEADER_LEN - 8) >> 8 != m->sent.half[1])
			return 0;
		at += m->segment;
	}
	return at >= skb->len;
}

static __always_inline struct counts *counts(void)
{
	return bpf_map_lookup_elem(&counted, &only);
}

/* The way out, as for a packet of the machine's own, with so many bytes of headers before the message. 0 where there is none right now: a
   socket may do better, and resolve the neighbour or say what is wrong. */
static __always_inline int find_way(struct __sk_buff *skb, const struct message *m, struct leg *leg, struct leg *kept, __u8 family, __u64 now)
{
	struct way *way = &leg->way;
	const __u64 of[2] = { leg->seal, now >> EPOCH };
	if (way->seal != seal(of, 2, way, WORDS(struct way, seal))) {
		/* A length, for without one the packet's own would be judged. */
		struct bpf_fib_lookup fib = { .family = family, .l4_protocol = IPPROTO_UDP, .tot_len = 1, .ifindex = LOOPBACK };
		fib.sport = leg->from_port;
		fib.dport = leg->to_port;
		if (family == AF_INET) {
			fib.ipv4_src = leg->from.half[1] >> 32;
			fib.ipv4_dst = leg->to.half[1] >> 32;
		} else {
			__builtin_memcpy(fib.ipv6_src, &leg->from, sizeof(leg->from));
			__builtin_memcpy(fib.ipv6_dst, &leg->to, sizeof(leg->to));
		}
		if (bpf_fib_lookup(skb, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS)
			goto none;
		way->destination = way->origin = 0;
		__builtin_memcpy(&way->destination, fib.dmac, ETH_ALEN);
		__builtin_memcpy(&way->origin, fib.smac, ETH_ALEN);
		way->interface = fib.ifindex;
		way->mtu = fib.mtu_result;
		way->seal = seal(of, 2, way, WORDS(struct way, seal));
		copy_out(&kept->way, way, sizeof(*way) / 8);
	}
	if (m->at - ETH_HLEN + m->segment <= way->mtu)
		return 1;
none:;
	struct counts *n = counts();
	if (n)
		n->no_way++;
	return 0;
}

/* Takes something of what would be full at that moment (GCRA), or does not, as if nobody else did at once. */
static __always_inline int take(__u64 *full_at, __u64 cost, __u64 burst, __u64 now)
{
	for (int i = 0; i < TRIES; i++) {
		__u64 was = *(volatile __u64 *)full_at, then = (was > now ? was : now) + cost;
		if (then > now + burst)
			return DROP;
		if (__sync_val_compare_and_swap(full_at, was, then) == was)
			return 0;
	}
	return NEXT;
}

/* What was taken and not used. A budget that was given to somebody else meanwhile is full already. */
static __always_inline void give_back(__u64 *full_at, __u64 cost)
{
	for (int i = 0; i < TRIES; i++) {
		__u64 was = *(volatile __u64 *)full_at;
		if (was < cost || __sync_val_compare_and_swap(full_at, was, was - cost) == was)
			return;
	}
}

static __always_inline __u64 cost_of_messages(const struct message *m)
{
	return limits.message_every * m->datagrams;
}

/* All datagrams but the last are of one size. */
static __always_inline __u64 cost_of_data(const struct __sk_buff *skb, const struct message *m)
{
	__u32 others = m->datagrams - 1, last = skb->len - m->at - others * m->segment;
	__u64 units = (((m->segment - HEADER_LEN) >> limits.unit_log) + 1) * (__u64)others + ((last - HEADER_LEN) >> limits.unit_log) + 1;
	return limits.unit_every * units;
}

/* Over the rate: at most once in a while the sockets may see it, take of it what still is within, and tell the device. */
static __always_inline int refuse(const struct message *m, __u64 now)
{
	__u64 told = *(volatile __u64 *)&m->sender->told;
	if (now - told >= TOLD && __sync_val_compare_and_swap(&m->sender->told, told, now) == told)
		return NEXT;
	struct counts *n = counts();
	if (n)
		n->over_rate += m->datagrams;
	return DROP;
}

/* Takes what the packet costs of its sender's budget, if all of it is there. Else: what becomes of it. */
static __always_inline int spend(const struct __sk_buff *skb, const struct message *m, __u64 now)
{
	if (!limits.message_every && !limits.unit_every)
		return 0;
	struct budget *budget = bpf_map_lookup_elem(&budgets, &m->budget);
	if (!budget)
		return NEXT;
	/* The exact clock, as workers have it: by one that ticks, a device that has rested would get a tick's worth more. */
	__u64 since = bpf_ktime_get_ns() - limits.start;
	int verdict = 0;
	if (limits.message_every)
		verdict = take(&budget->messages_full_at, cost_of_messages(m), limits.messages, since);
	if (!verdict && limits.unit_every) {
		verdict = take(&budget->units_full_at, cost_of_data(skb, m), limits.units, since);
		if (verdict && limits.message_every)
			give_back(&budget->messages_full_at, cost_of_messages(m));
	}
	return verdict == DROP ? refuse(m, now) : verdict;
}

static __always_inline void unspend(const struct __sk_buff *skb, const struct message *m)
{
	if (!limits.message_every && !limits.unit_every)
		return;
	struct budget *budget = bpf_map_lookup_elem(&budgets, &m->budget);
	if (!budget)
		return;
	give_back(&budget->messages_full_at, cost_of_messages(m));
	give_back(&budget->units_full_at, cost_of_data(skb, m));
}

static __always_inline void write_ends(struct ethhdr *eth, struct udphdr *udp, const struct leg *leg)
{
	__builtin_memcpy(eth->h_dest, &leg->way.destination, ETH_ALEN);
	__builtin_memcpy(eth->h_source, &leg->way.origin, ETH_ALEN);
	udp->source = leg->from_port;
	udp->dest = leg->to_port;
}

/* Sends the packet on, with these headers; `old_ips` and `new_ips` are sums, of so many words each. */
static __always_inline int send(struct __sk_buff *skb, const struct message *m, const struct leg *leg, const void *headers, __u32 udp_at,
				__u64 words, __u64 old_ips, __u64 new_ips)
{
	__u32 interface = leg->way.interface, length = skb->len, check_at = udp_at + __builtin_offsetof(struct udphdr, check);
	__u32 at = udp_at + sizeof(struct udphdr); /* m->at, and the verifier sees that it is */
	__u64 old = sum2(m->sent.half) + half_word(m->ports);
	__u64 new = sum2(m->relayed.half) + ((__u32)leg->to_port << 16 | leg->from_port);

	/* Written in one go, not through the packet's pointers: for those the kernel would first copy every packet that somebody else looks at. */
	if (bpf_skb_store_bytes(skb, 0, headers, at + HEADER_LEN, 0)) {
		unspend(skb, m);
		return NEXT;
	}
#pragma clang loop unroll(disable)
	for (int i = 1; i < MOST_SEGMENTS; i++) {
		at += m->segment;
		if (i >= m->datagrams)
			break;
		bpf_skb_store_bytes(skb, at, &m->relayed, HEADER_LEN, 0); /* cannot fail: it is one piece by now, and nobody else's */
	}
	/* Addresses count for every checksum, also for the part of one that the card completes; ports and the message only for a whole one. */
	bpf_l4_csum_replace(skb, check_at, 0, fold32(new_ips + COUNT_OUT(words, old_ips)), BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0);
	bpf_l4_csum_replace(skb, check_at, 0, fold32(new + COUNT_OUT(5, old)), BPF_F_MARK_MANGLED_0);
	struct counts *n = counts();
	if (n) {
		n->messages += m->datagrams;
		n->bytes += length - m->at - m->datagrams * HEADER_LEN;
	}
	return bpf_redirect(interface, 0);
}

/* The first bytes of a packet in one piece. */
static __always_inline void *front(struct __sk_buff *skb, __u32 length)
{
	if ((void *)(long)skb->data + length > (void *)(long)skb->data_end && (skb->len < length || bpf_skb_pull_data(skb, length)))
		return 0;
	void *data = (void *)(long)skb->data;
	return data + length <= (void *)(long)skb->data_end ? data : 0;
}

static __always_inline int relay_ipv4(struct __sk_buff *skb)
{
	struct message m = { .at = OFFSET(struct headers_ipv4, message) };
	const void *data = front(skb, LENGTH(struct headers_ipv4));
	if (!data)
		return NEXT;
	const struct iphdr *ip = data + OFFSET(struct headers_ipv4, ip);
	const struct udphdr *udp = data + OFFSET(struct headers_ipv4, udp);
	/* No options, no fragments, nothing that the kernel would drop. */
	if (ip->version != 4 || ip->ihl != 5 || ip->protocol != IPPROTO_UDP || (ip->frag_off & bpf_htons(FRAGMENT)) ||
	    bpf_ntohs(ip->tot_len) != skb->len - ETH_HLEN || fold16(sum2((const __u64 *)ip) + half_word(&ip->daddr)) != 0xffff)
		return NEXT;
	if (!read_message(skb, &m, udp, data + m.at))
		return NEXT;
	m.source = mapped(ip->saddr);
	m.local = mapped(ip->daddr);
	__u64 old_ips = (__u64)ip->saddr + ip->daddr, now = bpf_ktime_get_coarse_ns();
	struct headers_ipv4 h = {
		.eth.h_proto = bpf_htons(ETH_P_IP),
		.ip = { .version = 4, .ihl = 5, .tot_len = ip->tot_len, .id = ip->id, .frag_off = bpf_htons(DO_NOT_FRAGMENT),
			.ttl = HOPS, .protocol = IPPROTO_UDP },
		.udp = { .len = udp->len, .check = udp->check },
	};

	struct leg leg, *kept = judge(&m, &leg, now);
	if (!kept || !is_mapped(&leg.to) || !find_way(skb, &m, &leg, kept, AF_INET, now))
		return NEXT;
	if (m.datagrams > 1 && !all_alike(skb, &m))
		return NEXT;
	int refused = spend(skb, &m, now);
	if (refused)
		return refused;
	write_ends(&h.eth, &h.udp, &leg);
	h.ip.saddr = leg.from.half[1] >> 32;
	h.ip.daddr = leg.to.half[1] >> 32;
	h.ip.check = ~fold16(sum2((__u64 *)&h.ip) + half_word(&h.ip.daddr));
	__builtin_memcpy(h.message, &m.relayed, sizeof(h.message));
	return send(skb, &m, &leg, &h.eth, OFFSET(struct headers_ipv4, udp), 2, old_ips, (__u64)h.ip.saddr + h.ip.daddr);
}

static __always_inline int relay_ipv6(struct __sk_buff *skb)
{
	struct message m = { .at = OFFSET(struct headers_ipv6, message) };
	const void *data = front(skb, LENGTH(struct headers_ipv6));
	if (!data)
		return NEXT;
	const struct ipv6hdr *ip = data + OFFSET(struct headers_ipv6, ip);
	const struct udphdr *udp = data + OFFSET(struct headers_ipv6, udp);
	/* No extension headers, and so no fragments; nothing that the kernel would drop. */
	if (ip->version != 6 || ip->nexthdr != IPPROTO_UDP || ip->payload_len != udp->len)
		return NEXT;
	if (!read_message(skb, &m, udp, data + m.at))
		return NEXT;
	m.source = ip_at(&ip->saddr);
	m.local = ip_at(&ip->daddr);
	/* Mapped ones are those of IPv4 in the table; no packet has them, or somebody speaks for a device on IPv4. */
	if (is_mapped(&m.source) || is_mapped(&m.local))
		return NEXT;
	__u64 old_ips = sum2(m.source.half) + sum2(m.local.half), now = bpf_ktime_get_coarse_ns();
	struct headers_ipv6 h = {
		.eth.h_proto = bpf_htons(ETH_P_IPV6),
		.ip = { .version = 6, .payload_len = ip->payload_len, .nexthdr = IPPROTO_UDP, .hop_limit = HOPS },
		.udp = { .len = udp->len, .check = udp->check },
	};

	struct leg leg, *kept = judge(&m, &leg, now);
	if (!kept || is_mapped(&leg.to) || !find_way(skb, &m, &leg, kept, AF_INET6, now))
		return NEXT;
	if (m.datagrams > 1 && !all_alike(skb, &m))
		return NEXT;
	int refused = spend(skb, &m, now);
	if (refused)
		return refused;
	write_ends(&h.eth, &h.udp, &leg);
	__builtin_memcpy(&h.ip.saddr, &leg.from, sizeof(leg.from));
	__builtin_memcpy(&h.ip.daddr, &leg.to, sizeof(leg.to));
	__builtin_memcpy(h.message, &m.relayed, sizeof(h.message));
	return send(skb, &m, &leg, &h.eth, OFFSET(struct headers_ipv6, udp), 8, old_ips, sum2(leg.from.half) + sum2(leg.to.half));
}

SEC("classifier")
int bowline_relay(struct __sk_buff *skb)
{
	/* What a switch floods or a sniffer has the card take is for others. A tag that is still there belongs to an interface above this one. */
	if (skb->pkt_type != PACKET_HOST || skb->vlan_present)
		return NEXT;
	/* The headers are made one piece, which must not reach beyond the first of a list of packets, whosever they are. */
	if (skb->gso_size && skb->gso_size < HEADER_LEN)
		return NEXT;
	switch (bpf_ntohs(skb->protocol)) {
	case ETH_P_IP:
		return relay_ipv4(skb);
	case ETH_P_IPV6:
		return relay_ipv6(skb);
	default:
		return NEXT;
	}
}

/* What a program has to say to be let at the routing table. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
