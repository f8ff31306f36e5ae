/* What the programs and the agent share: the maps and what lies in them.
 *
 * Mirrored by ccn/src/plane/ebpf/layout.rs, which tests compare with this file's object. Whoever changes
 * a struct or the meaning of a field changes LAYOUT_VERSION too: an agent that finds another version
 * fills new maps beside the old and switches.
 *
 * "Space": what a prefix is looked up in. Spaces of destinations are scopes (DESIGN: CCSIs), named by
 * their lowest VNI; spaces of classic prefixes are VPCs, named by their VNI. Numbers are in host order
 * but for addresses and the ports of flows. */
#ifndef CCN_LAYOUT_H
#define CCN_LAYOUT_H

#define LAYOUT_VERSION 3

/* The lengths of the prefixes in one space, longest first; NO_LENGTH ends the list. A lookup asks once
 * for each. */
#define LENGTHS 16
#define NO_LENGTH 0xff
struct lengths {
	__u8 len[LENGTHS];
};

/* Keys of prefixes: space << 8 | length, and the network with all host bits zero. */
struct prefix4 {
	__u32 space_len;
	__be32 net;
};

struct prefix6 {
	__u32 space_len;
	__u8 net[16];
};

/* A VPC, by VNI. */
#define OWN 2
struct vpc {
	__u32 scope;
	__u32 counter; /* in vpc_counters */
	/* Its first IPv4 subnets, so that most sources need no lookup. Unused: mask 0, net ~0. */
	struct {
		__be32 net;
		__be32 mask;
	} own[OWN];
	struct lengths subnets4; /* of the scope */
	struct lengths subnets6;
	struct lengths classic4; /* of the VPC's links */
	struct lengths classic6;
};

/* A subnet of a VPC, by (scope, prefix) in `subnets4` and `subnets6`; those of linked VPCs also by
 * (space 0, prefix) in `linked4` and `linked6`. A subnet's window are `span` addresses from `first` on:
 * they have one slot each, from `base` on. In `linked4` and `linked6` a VNI of 0 is this host: an address
 * of its own inside a linked subnet, which the stack is to have. */
#define SUBNET_SPARSE 1 /* addresses outside the window may be in `sparse` */
struct subnet {
	__u32 vni;
	__u32 counter; /* in vpc_counters */
	__u32 base;
	__u32 span;  /* 0: no window */
	__u64 first; /* IPv4: the lowest address as a number; IPv6: its low 64 bits */
	__u64 high;  /* IPv6: its high 64 bits, the same in all of the window */
	__u32 flags;
	__u32 pad;
	struct lengths classic; /* linked4, linked6: as in struct vpc, of this family. Else unused */
};

/* A classic prefix that links join with a VPC, by (VNI, prefix) in `classics4` and `classics6`. Never all zero. */
#define PERMIT_TRACKED 1 /* mode classic-to-vpc: the VPC may only reply */
#define PERMIT_GIVEN 2	 /* always */
#define DSCP_COPY 0xff
struct permit {
	__u16 link; /* in link_counters */
	__u8 flags;
	__u8 dscp; /* 0..63 for the outer header, or DSCP_COPY */
};

/* `classics4` is a hash table that the agent keeps in an array: a bucket is a cache line, and with two links or ten
 * thousand most lookups touch one. A prefix is in its home bucket, or, where that was full, in the first of the next
 * REACH - 1 that was not; `passed` counts those for each bucket they went by, so that a lookup knows where to end.
 * Bucket 0 is none: its key[0] is the number of buckets behind it, a power of two, less 1. The agent stores a permit
 * before its key, takes the key away before the permit, and gives no way to another key while a program may read it. */
#define WAYS 5
#define REACH 8
struct bucket {
	__u64 key[WAYS]; /* a prefix4: space_len << 32 | the network as a number; 0: free */
	struct permit permit[WAYS];
	__u32 passed;
};

/* Where an address is: eight octets, stored and loaded at once. In `slots` by number, in `sparse` by
 * (VNI, address). All zero: nobody has the address. */
#define HOST_NONE 0
#define HOST_SLB 0xffff
struct slot {
	__u16 host; /* in hosts, or HOST_NONE or HOST_SLB */
	union {
		__u8 mac[6]; /* inner destination */
		struct {
			/* An SLB: slots [base, base + mask + 1) hold its nodes, picked by flow. */
			__u16 mask; /* a power of two less 1 */
			__u16 base_low;
			__u16 base_high;
		} slb;
	};
};

struct address {
	__u32 vni;
	__u8 addr[16]; /* IPv4 as ::ffff:a.b.c.d */
};

/* An outer destination. */
struct host {
	__u32 family; /* 4, 6, or 0: unused */
	__u32 v4;     /* host order */
	__u8 v6[16];
};

/* What is counted. Octets are those of the inner IP packet. */
struct count {
	__u64 packets;
	__u64 octets;
};

/* What is counted of each link and VPC. `link_counters` and `vpc_counters` have a struct count for each number, kind and
 * processor: COUNTER_RUN numbers of one kind and processor follow one another, then come those of the next kind, the
 * next processor, the next numbers. So what a processor counts lies close together, and no other one writes to it. */
#define COUNTER_RUN 256
enum kind {
	KIND_TO_VPC,
	KIND_FROM_VPC,
	KIND_DROPPED,
	KINDS,
};

/* In `totals`. */
enum total {
	TOTAL_DECAPSULATED, /* received from hypervisors */
	TOTAL_ENCAPSULATED, /* sent to hypervisors */
	/* Flows begun. In place of octets: those that took a place in `flows`; nobody takes them out, so what is there
	 * no more was evicted. */
	TOTAL_FLOWS,
	TOTALS,
};

enum reason {
	REASON_NOT_LINKED,
	REASON_NOT_LINKED_SOURCE,
	REASON_UNKNOWN_VNI,
	REASON_BAD_SOURCE,
	REASON_NO_LINK,
	REASON_NO_SUCH_ENDPOINT,
	REASON_NO_IDC_ROUTE,
	REASON_NOT_A_REPLY,
	REASON_NOT_IP,	     /* VXLAN that carries neither IPv4 nor IPv6 */
	REASON_OTHER_MAC,    /* VXLAN for another inner MAC than the gateway's */
	REASON_MALFORMED,    /* shorter than its headers say, or headers that make no sense */
	REASON_TTL_EXCEEDED, /* also answered, as RFC 1812 allows */
	REASON_TOO_BIG,	     /* also answered */
	REASON_INTERNAL,     /* the kernel refused what never should be refused */
	REASONS,
};

/* A packet of a link or a drop: what operators are shown of it. */
struct sample {
	__u64 time; /* nanoseconds since boot */
	__u8 src[16]; /* IPv4 as ::ffff:a.b.c.d */
	__u8 dst[16];
	__u32 vni;  /* of the packet as it came, 0 if it was plain */
	__u32 link; /* in link_counters, or ~0 */
	__u32 octets;
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 reason; /* enum reason, or REASONS: forwarded */
	__u8 pad[6];
};

/* A flow that a classic host opened over a link of mode classic-to-vpc. */
struct flow {
	__u32 vni;
	__u8 classic[16];
	__u8 vpc[16];
	__be16 classic_port; /* ICMP echo: the identifier, in both */
	__be16 vpc_port;
	__u8 proto;
	__u8 pad[3];
};

#define FLOW_REPLIED 1
#define FLOW_CLOSING 2 /* TCP: a FIN or RST has passed */
struct flow_state {
	__u64 seen; /* nanoseconds since boot */
	__u32 flags;
	__u32 pad;
};

/* What concerns all packets: the one element of `globals`. */
struct globals {
	__u32 version; /* LAYOUT_VERSION */
	__u32 device;  /* interface index of the VXLAN device */
	__u32 mtu;     /* largest inner packet */
	__u8 mac[6];   /* inner source */
	__u16 trace;   /* TRACE_ */
	__u32 local4;  /* outer source, host order; 0: not that family */
	__u8 local6[16];
	__be32 icmp4; /* source of ICMP errors; 0: none are sent */
	__u8 icmp6[16];
	__u32 trace_link; /* ~0: every link */
	__u8 trace_addr[16]; /* all zero: every address */
	__u32 idc_table;   /* of the kernel's routes to the IDC */
	__be16 port;	   /* UDP port of VXLAN */
	__u16 past_device; /* whether packets may go past the VXLAN device */
	__u32 cpus;	   /* processors that there may be: elements of a counter */
	__u32 pad;
	struct lengths linked4; /* these two last */
	struct lengths linked6;
};

/* skb->mark of a packet of a VPC that the stack is to route to the IDC: too big for the way, it is to be fragmented.
 * Without the mark nothing that comes in by the VXLAN device is routed, also where somebody took our filter away. */
#define STACK_MARK 0xcc01

/* What `ask_idc` and `ask_vpc` answer when they are run for a test: they do what the programs on the
 * interfaces do, but count nothing and begin no flow. `ask_vpc` takes the VNI in word 0 of the skb's control
 * words. The answer is in the same words:
 *   word 0: one of these, or ANSWER_DROP + enum reason; from bit 8 on the link (as in struct permit),
 *           or ANSWER_NO_LINK
 *   ANSWER_ENCAPSULATE: the VNI in word 1, the slot in words 2 and 3
 *   ANSWER_FORWARD: the next hop as it is in packets, in words 1 (IPv4) to 4 (IPv6); its family is
 *           ANSWER_FORWARD6 for IPv6; the interface index in skb->priority */
#define ANSWER_STACK 1
#define ANSWER_ENCAPSULATE 2
#define ANSWER_FORWARD 3
#define ANSWER_FORWARD6 4
#define ANSWER_NO_LINK 0xffffff
#define ANSWER_DROP 16

#define TRACE_DROPS 1
#define TRACE_FORWARDED 2

#endif
