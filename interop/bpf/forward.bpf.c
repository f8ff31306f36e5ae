// SPDX-License-Identifier: GPL-2.0
/* What `bench forward` sends, and where it ends.
 *
 * `generate` is run by BPF_PROG_TEST_RUN with live frames: it writes one packet of a flow picked at
 * random into each frame and lets the stack have it. `sink`, on the egress of the gateway's interfaces,
 * counts what comes out and takes it away. What both are told and count is in maps; the other half is
 * interop/src/bench/forward/frames.rs. Numbers are in host order but for those inside `frame`.
 *
 * Only the project's benchmark uses it. It is built by ./build, and the object lies beside it. */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define ETH 14
#define IP 20
#define PLAIN (ETH + 46)
#define OUTER (ETH + IP + 8 + 8)
#define ENCAPSULATED (OUTER + PLAIN)

enum who { CLASSIC, VM };

/* Mirrored by `Work` in frames.rs. */
struct work {
	__u64 state;	/* of the random numbers; written by the program */
	__u64 sent;	/* packets given to the stack; written by the program */
	__u32 flows;	/* so many different ones, or 0: no bound */
	__u32 in_order; /* flows one after the other instead of at random */
	__u32 from;	/* enum who */
	__u32 to;
	__u32 vxlan; /* the frame is encapsulated */
	__u32 drop;  /* the stack never sees it */
	/* VM number i is number i / vpcs of VPC i % vpcs. */
	__u32 vms;
	__u32 vpcs;
	__u32 scope_vpcs; /* VPCs of a CCSI, which are neighbours by number */
	__u32 vm_net;	  /* the first VPC's subnet; the next ones follow it */
	__u32 vm_bits;	  /* of a subnet */
	__u32 hosts;	  /* VM number i is on host i % hosts */
	__u32 host_net;	  /* the first host; the next ones follow it */
	__u32 classics;	  /* classic networks of 256 addresses that follow one another */
	__u32 classic_net;
	__u32 vni; /* of the first VPC */
	__u32 vni_step;	/* from one VPC to the next: 1, or 0 where one VNI must do */
	__u32 outer_sum; /* checksum so far, addresses left out, not folded */
	__u32 inner_sum;
	__u32 pad;
	__u64 frame[14];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} works SEC(".maps");

enum kind { KIND_PLAIN, KIND_VXLAN, KIND_OTHER, KINDS };

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, KINDS);
	__type(key, __u32);
	__type(value, __u64);
} sunk SEC(".maps");

/* Spreads the bits of a number (the finaliser of MurmurHash3). */
static __always_inline __u64 mix(__u64 x)
{
	x ^= x >> 33;
	x *= 0xff51afd7ed558ccdULL;
	x ^= x >> 33;
	x *= 0xc4ceb9fe1a85ec53ULL;
	x ^= x >> 33;
	return x;
}

/* A number below `n`, made of 32 random bits. */
static __always_inline __u32 below(__u32 random, __u32 n)
{
	return ((__u64)random * n) >> 32;
}

static __always_inline __u16 checksum(__u32 sum, __u32 a, __u32 b)
{
	__u64 total = (__u64)sum + (a >> 16) + (a & 0xffff) + (b >> 16) + (b & 0xffff);

	total = (total & 0xffff) + (total >> 16);
	total = (total & 0xffff) + (total >> 16);
	return bpf_htons(~total);
}

/* Of an IP packet with UDP in it. Frames lie as they may: where this is built for, that is no matter. */
struct ip {
	__u16 before[5];
	__be16 check;
	__be32 src;
	__be32 dst;
	__be16 sport;
	__be16 dport;
};

/* Eight octets at a time, for a length known here. */
static __always_inline void copy(__u8 *to, const __u64 *from, __u32 length)
{
	__u32 at = 0;

#pragma unroll
	for (; at + 8 <= length; at += 8)
		*(__u64 *)(to + at) = from[at / 8];
	if (length & 4) {
		*(__u32 *)(to + at) = from[at / 8];
		at += 4;
	}
	if (length & 2)
		*(__u16 *)(to + at) = from[at / 8] >> (at % 8 * 8);
}

static __always_inline __u32 vm_address(const struct work *work, __u32 vpc, __u32 number)
{
	return work->vm_net + (vpc << work->vm_bits) + number + 1;
}

SEC("xdp")
int generate(struct xdp_md *ctx)
{
	__u8 *data = (void *)(long)ctx->data;
	__u8 *end = (void *)(long)ctx->data_end;
	__u32 zero = 0;
	struct work *work = bpf_map_lookup_elem(&works, &zero);
	__u32 vm, vpc, number, classic, src, dst;
	__u64 flow, random;
	struct ip *inner;

	if (!work)
		return XDP_ABORTED;
	if (work->in_order) {
		flow = work->state++;
	} else {
		work->state = work->state * 6364136223846793005ULL + 1442695040888963407ULL;
		flow = work->state >> 32;
		if (work->flows)
			flow = below(flow, work->flows);
	}
	random = mix(flow);

	vm = below(random, work->vms);
	random = mix(random);
	vpc = vm % work->vpcs;
	number = vm / work->vpcs;
	classic = work->classic_net + (below(random, work->classics) << 8) + ((random >> 32) & 0xff);
	src = work->from == VM ? vm_address(work, vpc, number) : classic;
	if (work->to == CLASSIC) {
		dst = classic;
	} else if (work->from == CLASSIC) {
		dst = vm_address(work, vpc, number);
	} else {
		/* Some VM of the same CCSI; every VPC has at least vms / vpcs. */
		__u32 first = vpc - vpc % work->scope_vpcs;

		dst = vm_address(work, first + below(random, work->scope_vpcs),
				 below(random >> 32, work->vms / work->vpcs));
	}

	if (work->vxlan) {
		__u32 vtep = work->host_net + vm % work->hosts;
		__u32 vni = work->vni + vpc * work->vni_step;
		struct ip *outer;

		if (data + ENCAPSULATED > end)
			return XDP_ABORTED;
		copy(data, work->frame, ENCAPSULATED);
		outer = (void *)(data + ETH);
		outer->src = bpf_htonl(vtep);
		outer->check = checksum(work->outer_sum, vtep, 0);
		outer->sport = bpf_htons(0xc000 | (random & 0x3fff));
		data[OUTER - 4] = vni >> 16;
		data[OUTER - 3] = vni >> 8;
		data[OUTER - 2] = vni;
		inner = (void *)(data + OUTER + ETH);
	} else {
		if (data + PLAIN > end)
			return XDP_ABORTED;
		copy(data, work->frame, PLAIN);
		inner = (void *)(data + ETH);
	}
	inner->src = bpf_htonl(src);
	inner->dst = bpf_htonl(dst);
	inner->check = checksum(work->inner_sum, src, dst);
	/* The classic side's port is of the flow, the VM's is 80: so a reply is the flow's own. */
	if (work->from == VM)
		inner->dport = bpf_htons(0x8000 | (random >> 40 & 0x7fff));
	else
		inner->sport = bpf_htons(0x8000 | (random >> 40 & 0x7fff));
	if (work->drop)
		return XDP_DROP;
	work->sent++;
	return XDP_PASS;
}

SEC("classifier")
int sink(struct __sk_buff *skb)
{
	__u8 *data = (void *)(long)skb->data;
	__u8 *end = (void *)(long)skb->data_end;
	__u32 kind = KIND_OTHER;
	__u64 *count;

	if (data + ETH + IP + 8 <= end && skb->protocol == bpf_htons(0x0800) && data[ETH + 9] == 17) {
		__u16 port = data[ETH + IP + 2] << 8 | data[ETH + IP + 3];

		kind = port == 4789 ? KIND_VXLAN : KIND_PLAIN;
	}
	count = bpf_map_lookup_elem(&sunk, &kind);
	if (count)
		(*count)++;
	return 4; /* TC_ACT_STOLEN: to the stack it was sent */
}

char _license[] SEC("license") = "GPL";
