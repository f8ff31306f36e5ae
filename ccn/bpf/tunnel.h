/* The way to hypervisors and from them: through the VXLAN device, or past it.
 *
 * "Past it" is for what most packets are: whole, of one segment, over IPv4. The programs put the outer
 * headers on and take them off themselves, which saves the device's and the host's share of the work. Whoever
 * goes past the device decides everything before a single octet is changed: what it cannot finish goes
 * through the device as if nothing had been tried. */
#ifndef CCN_TUNNEL_H
#define CCN_TUNNEL_H

#include "lookup.h"

#define FAMILY4 2   /* AF_INET */
#define FAMILY6 10  /* AF_INET6 */
#define CONTINUE TC_ACT_UNSPEC
#define LOOPBACK 1 /* the interface that the kernel's own packets are looked up with */
#define OUTER_TTL 64
#define ECN 3
#define FIRST_PORT 49152 /* RFC 7348 section 5 */
#define ADJ_ROOM_DECAP_L3_IPV6 (1U << 8) /* Linux 6.3 */
#define VXLAN_FLAGS 0x08000000U /* a VNI, and no extension of others */

/* What is between the frame's Ethernet header and that of the inner packet. */
struct outer {
	__u8 ihl;
	__u8 tos;
	__be16 octets;
	__be16 id;
	__be16 frag;
	__u8 ttl;
	__u8 proto;
	__u16 check;
	__be32 src;
	__be32 dst;
	__be16 sport;
	__be16 dport;
	__be16 udp_octets;
	__u16 udp_check;
	__be32 flags;
	__be32 vni;
	__u8 inner_dst[6];
	__u8 inner_src[6];
	__be16 inner_proto;
} __attribute__((packed, aligned(2)));

#define OUTER_LEN ((int)sizeof(struct outer))
#define INNER_AT (ETH_LEN + OUTER_LEN) /* the inner IP header of a frame from a hypervisor */
_Static_assert(sizeof(struct outer) == 50, "RFC 7348 section 5");

/* How a packet leaves for a hypervisor. */
struct tunnel {
	__u64 slot;
	__u32 vni;
	__u16 sport; /* past the device: the outer source port */
	__u8 tos;    /* the outer one's DSCP */
	__u8 ecn;    /* of the inner packet */
	__u8 whole;  /* fits the device: need not be fragmented */
	__u8 family; /* of the inner packet */
};

static __always_inline struct globals *global(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&globals, &zero);
}

static __always_inline __u16 entropy(struct __sk_buff *skb, const struct packet *p)
{
	__u32 ports = 0;
	if (!p->fragment && (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP))
		bpf_skb_load_bytes(skb, p->l4, &ports, 4);
	__u64 hash = mix(p->proto, p->src.d[0] ^ p->dst.d[0]);
	hash = mix(hash, p->src.d[1]);
	hash = mix(hash, p->dst.d[1]);
	return FIRST_PORT + (mix(hash, ports) >> 20 & 0x3fff);
}

/* Leads a packet, complete but for its Ethernet header, into the VXLAN device. */
static __always_inline int through_device(struct __sk_buff *skb, const struct globals *g, const struct host *host,
					  const struct tunnel *t, struct bpf_tunnel_key *key)
{
	__u64 flags = t->whole ? BPF_F_DONT_FRAGMENT : 0;
	__builtin_memset(key, 0, sizeof(*key));
	key->tunnel_id = t->vni;
	key->tunnel_tos = t->tos;
	if (host->family == 4) {
		key->remote_ipv4 = host->v4;
		key->local_ipv4 = g->local4;
		flags |= BPF_F_ZERO_CSUM_TX;
	} else if (host->family == 6) {
		__builtin_memcpy(key->remote_ipv6, host->v6, 16);
		__builtin_memcpy(key->local_ipv6, g->local6, 16);
		flags |= BPF_F_TUNINFO_IPV6;
	} else {
		return -1;
	}
	if (bpf_skb_set_tunnel_key(skb, key, sizeof(*key), flags))
		return -1;
	void *data = (void *)(long)skb->data;
	struct ethhdr *eth = data;
	if (data + ETH_LEN > (void *)(long)skb->data_end)
		return -1;
	__u64 mac = t->slot >> 16;
	__builtin_memcpy(eth->h_dest, &mac, 6);
	__builtin_memcpy(eth->h_source, g->mac, 6);
	return bpf_redirect(g->device, 0);
}

/* The outer headers for so many octets of inner IP packet, and the interface and next hop they leave by; nonzero
 * where the device has to do it. */
static __always_inline int compose(struct __sk_buff *skb, const struct globals *g, const struct host *host,
				   const struct tunnel *t, __u32 octets, struct outer *o,
				   struct bpf_fib_lookup *fib)
{
	__u32 whole = octets + OUTER_LEN;
	if (!g->past_device || !t->whole || host->family != 4)
		return -1;
	fib->family = FAMILY4;
	fib->l4_protocol = IPPROTO_UDP;
	fib->sport = bpf_htons(t->sport);
	fib->dport = g->port;
	fib->tot_len = whole;
	fib->ifindex = LOOPBACK;
	fib->tos = t->tos;
	fib->ipv4_src = bpf_htonl(g->local4);
	fib->ipv4_dst = bpf_htonl(host->v4);
	long found = bpf_fib_lookup(skb, fib, sizeof(*fib), 0);
	if (found != BPF_FIB_LKUP_RET_SUCCESS && found != BPF_FIB_LKUP_RET_NO_NEIGH)
		return -1;
	__builtin_memset(o, 0, sizeof(*o));
	o->ihl = 0x45;
	o->tos = (t->tos & ~ECN) | t->ecn;
	o->octets = bpf_htons(whole);
	o->frag = bpf_htons(IP_DF);
	o->ttl = OUTER_TTL;
	o->proto = IPPROTO_UDP;
	o->src = bpf_htonl(g->local4);
	o->dst = bpf_htonl(host->v4);
	__u32 sum = (__u32)o->tos + 0x4500 + whole + IP_DF + (OUTER_TTL << 8) + IPPROTO_UDP + (g->local4 >> 16) +
		    (g->local4 & 0xffff) + (host->v4 >> 16) + (host->v4 & 0xffff);
	o->check = bpf_htons((__u16)~fold(sum));
	o->sport = bpf_htons(t->sport);
	o->dport = g->port;
	o->udp_octets = bpf_htons(whole - IPV4_LEN);
	o->flags = bpf_htonl(VXLAN_FLAGS);
	o->vni = bpf_htonl(t->vni << 8);
	__u64 mac = t->slot >> 16;
	__builtin_memcpy(o->inner_dst, &mac, 6);
	__builtin_memcpy(o->inner_src, g->mac, 6);
	o->inner_proto = t->family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	return 0;
}

static __always_inline int leave(const struct bpf_fib_lookup *fib)
{
	struct bpf_redir_neigh hop = { .nh_family = fib->family };
	if (fib->family == FAMILY4)
		hop.ipv4_nh = fib->ipv4_dst;
	else
		__builtin_memcpy(hop.ipv6_nh, fib->ipv6_dst, 16);
	return bpf_redirect_neigh(fib->ifindex, &hop, sizeof(hop), 0);
}

/* Sends a plain IP packet to a hypervisor. Negative: it could not be sent. */
__noinline int encapsulate(struct __sk_buff *skb, const struct tunnel *t)
{
	if (!skb || !t)
		return -1;
	struct globals *g = global();
	__u32 number = host_of(t->slot);
	struct host *host = bpf_map_lookup_elem(&hosts, &number);
	struct bpf_fib_lookup fib = {};
	/* The stacks of all functions on the way here are 512 octets. */
	union {
		struct outer outer;
		struct bpf_tunnel_key key;
	} head;
	if (!g || !host)
		return -1;
	if (skb->gso_size || compose(skb, g, host, t, skb->len - ETH_LEN, &head.outer, &fib) ||
	    bpf_skb_adjust_room(skb, OUTER_LEN, BPF_ADJ_ROOM_MAC,
				BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP |
					BPF_F_ADJ_ROOM_ENCAP_L2(ETH_LEN) | BPF_F_ADJ_ROOM_ENCAP_L2_ETH))
		return through_device(skb, g, host, t, &head.key);
	if (bpf_skb_store_bytes(skb, ETH_LEN, &head.outer, sizeof(head.outer), BPF_F_RECOMPUTE_CSUM))
		return -1;
	return leave(&fib);
}

/* Sends on to another hypervisor what came from one past the device. CONTINUE: that cannot be done, and
 * nothing has changed. */
__noinline int reencapsulate(struct __sk_buff *skb, const struct tunnel *t)
{
	if (!skb || !t)
		return CONTINUE;
	struct globals *g = global();
	__u32 number = host_of(t->slot);
	struct host *host = bpf_map_lookup_elem(&hosts, &number);
	struct bpf_fib_lookup fib = {};
	struct outer o;
	if (!g || !host || compose(skb, g, host, t, skb->len - INNER_AT, &o, &fib))
		return CONTINUE;
	if (bpf_skb_store_bytes(skb, ETH_LEN, &o, sizeof(o), BPF_F_RECOMPUTE_CSUM))
		return TC_ACT_SHOT;
	return leave(&fib);
}

/* What the outer headers of a frame tell. */
struct envelope {
	__u32 vni;
	__u8 ecn;
	__u8 family; /* of the inner packet */
};

/* Whether what the outer header says of congestion need not be told to the inner one (RFC 6040 section 4.2), which
 * is the device's work. */
static __always_inline int tells_nothing(__u8 outer, __u8 inner)
{
	return !(outer & 1) || outer == inner;
}

/* Reads the outer headers of a frame from a hypervisor that may go past the device; nonzero for all others,
 * among them whatever the device or the host's stack would refuse. */
static __always_inline int look_inside(struct __sk_buff *skb, const struct globals *g, struct envelope *e)
{
	if (!g->past_device || skb->gso_size || skb->vlan_present || pull(skb, INNER_AT + IPV4_LEN))
		return -1;
	void *data = (void *)(long)skb->data;
	struct outer *o = data + ETH_LEN;
	if ((void *)(o + 1) > (void *)(long)skb->data_end)
		return -1;
	__u32 octets = skb->len - ETH_LEN;
	if (o->ihl != 0x45 || o->proto != IPPROTO_UDP || o->dst != bpf_htonl(g->local4) || o->dport != g->port ||
	    o->frag & ~bpf_htons(IP_DF) || o->udp_check ||
	    o->octets != bpf_htons(octets) || o->udp_octets != bpf_htons(octets - IPV4_LEN) ||
	    o->flags != bpf_htonl(VXLAN_FLAGS) || o->vni & bpf_htonl(0xff))
		return -1;
	__u16 *word = (__u16 *)o;
	__u64 sum = 0;
#pragma unroll
	for (int i = 0; i < 10; i++)
		sum += word[i];
	if (fold(sum) != 0xffff)
		return -1;
	const __u16 *to = (const __u16 *)o->inner_dst, *own = (const __u16 *)g->mac;
	if (to[0] != own[0] || to[1] != own[1] || to[2] != own[2])
		return -1;
	e->vni = bpf_ntohl(o->vni) >> 8;
	e->ecn = o->tos & ECN;
	e->family = o->inner_proto == bpf_htons(ETH_P_IP) ? 4 : o->inner_proto == bpf_htons(ETH_P_IPV6) ? 6 : 0;
	return !e->family;
}

/* Takes the outer headers off a frame that was looked into. Nonzero: impossible, and nothing has changed. */
static __always_inline int decapsulate(struct __sk_buff *skb, const int family)
{
	return bpf_skb_adjust_room(skb, -OUTER_LEN, BPF_ADJ_ROOM_MAC, family == 6 ? ADJ_ROOM_DECAP_L3_IPV6 : 0);
}

#endif
