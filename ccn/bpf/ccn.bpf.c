// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* Steering: what the forwarding contract says of each packet (DESIGN.md section 5).
 *
 * `from_idc` is on the ingress of each IDC interface, `from_vpc` on that of the external VXLAN device,
 * where packets are already decapsulated, `from_underlay` on that of the interfaces that they come in by: it
 * forwards most of them before the device has anything to do with them (tunnel.h). What is forwarded never reaches the host's stack; what is the
 * host's own is left to it. The programs decide nothing that is not in the maps. `ask_idc` and `ask_vpc`
 * are the same, for whoever wants to know what would happen to a packet. */
#include <stddef.h>
#include <asm-generic/errno-base.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "maps.h"
#include "packet.h"
#include "lookup.h"
#include "tunnel.h"
#include "count.h"
#include "flow.h"
#include "icmp.h"

#define PACKET_HOST 0 /* to this interface's own MAC */
#define FIB_DIRECT 1U	 /* the table, not the rules; Linux 6.5 with */
#define FIB_TBID 8U

/* On whose behalf a packet is looked at. */
enum mode {
	LIVE,  /* it is here, at the IDC's interface or the VXLAN device */
	ASKED, /* it is made up */
	PAST,  /* it is still as a hypervisor sent it: whatever is not to be forwarded is left to the device */
};

/* Of what is not forwarded. */
static __always_inline int drop_or_leave(struct __sk_buff *skb, const struct packet *p, const struct whose *w,
					 __u32 reason, const enum mode mode)
{
	return mode == PAST ? CONTINUE : drop(skb, p, w, reason);
}

/* Cuts off what the link layer padded. */
static __always_inline int trim(struct __sk_buff *skb, __u32 octets)
{
	if (skb->len == ETH_LEN + octets || skb->gso_size)
		return 0;
	return bpf_skb_change_tail(skb, ETH_LEN + octets, 0);
}

/* Whether a packet that does not fit can be sent all the same: an outer IPv4 packet is fragmented, an outer
 * IPv6 packet of somebody else's never. */
static __always_inline int may_be_cut(const struct packet *p, const struct tunnel *t)
{
	__u32 number = host_of(t->slot);
	struct host *host = p->dont_fragment ? NULL : bpf_map_lookup_elem(&hosts, &number);
	return host && host->family == 4;
}

/* One hop further. */
static __always_inline int lower_ttl(struct __sk_buff *skb, const __u32 at, const int family)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	if (family == 4) {
		struct iphdr *ip = data + at;
		if ((void *)(ip + 1) > end)
			return -1;
		__u32 check = ip->check + bpf_htons(0x0100);
		ip->check = check + (check >= 0xffff);
		ip->ttl--;
		return 0;
	}
	struct ipv6hdr *ip = data + at;
	if ((void *)(ip + 1) > end)
		return -1;
	__u16 *word = (__u16 *)&ip->nexthdr, old = *word;
	ip->hop_limit--;
	/* IPv6 has no checksum that would make up for it. */
	bpf_csum_update(skb, (__u16)~old + *word);
	return 0;
}

/* Where the sender of a packet of a VPC is. */
__noinline __u64 find_sender(struct __sk_buff *skb, const struct packet *p, __u32 vni)
{
	struct vpc *vpc = bpf_map_lookup_elem(&vpcs, &vni);
	struct subnet *s;
	if (!skb || !p || !vpc)
		return 0;
	if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		s = find_subnet(vpc->scope, &p->src, &vpc->subnets6, 6);
		return s ? find_endpoint(skb, s, p, &p->src, 6) : 0;
	}
	s = find_subnet(vpc->scope, &p->src, &vpc->subnets4, 4);
	return s ? find_endpoint(skb, s, p, &p->src, 4) : 0;
}

static __always_inline int answer(struct __sk_buff *skb, const struct whose *w, __u32 what)
{
	skb->cb[0] = what | w->link << 8;
	return TC_ACT_OK;
}

static __always_inline int answer_tunnel(struct __sk_buff *skb, const struct whose *w, const struct tunnel *t)
{
	skb->cb[1] = t->vni;
	skb->cb[2] = t->slot;
	skb->cb[3] = t->slot >> 32;
	return answer(skb, w, ANSWER_ENCAPSULATE);
}

/* Answers with an ICMP error, back where the packet came from. */
__noinline int refuse(struct __sk_buff *skb, const struct packet *p, const struct whose *w,
			     __u32 reason, __u32 mtu)
{
	if (!skb || !p || !w)
		return TC_ACT_SHOT;
	__u32 error = reason == REASON_TOO_BIG ? ERROR_TOO_BIG : ERROR_TIME_EXCEEDED;
	const int is6 = skb->protocol == bpf_htons(ETH_P_IPV6);
	struct tunnel t = { .vni = w->vni, .tos = is6 ? 0 : 0xc0, .whole = 1, .family = is6 ? 6 : 4 };
	drop(skb, p, w, reason);
	if (w->asked)
		return TC_ACT_SHOT;
	if (t.vni) {
		t.slot = find_sender(skb, p, t.vni);
		if (host_of(t.slot) == HOST_NONE)
			return TC_ACT_SHOT;
	}
	if (is6 ? answer6(skb, p, error, mtu) : answer4(skb, p, error, mtu))
		return TC_ACT_SHOT;
	if (t.vni) {
		int verdict = encapsulate(skb, &t);
		return verdict < 0 ? TC_ACT_SHOT : verdict;
	}
	void *data = (void *)(long)skb->data;
	struct ethhdr *eth = data;
	if (data + ETH_LEN > (void *)(long)skb->data_end)
		return TC_ACT_SHOT;
	__u8 mac[6];
	__builtin_memcpy(mac, eth->h_source, 6);
	__builtin_memcpy(eth->h_source, eth->h_dest, 6);
	__builtin_memcpy(eth->h_dest, mac, 6);
	return bpf_redirect(skb->ifindex, 0);
}

/* Asks the kernel's FIB for the way of a packet. */
static __always_inline void ask_for(struct bpf_fib_lookup *fib, const struct packet *p, const int is4)
{
	fib->l4_protocol = p->proto;
	if (is4) {
		fib->family = FAMILY4;
		fib->ipv4_src = p->src.w[3];
		fib->ipv4_dst = p->dst.w[3];
	} else {
		fib->family = FAMILY6;
		__builtin_memcpy(fib->ipv6_src, &p->src, 16);
		__builtin_memcpy(fib->ipv6_dst, &p->dst, 16);
	}
}

/* What no link is for: the host's own, or nobody's. */
__noinline int unlinked(struct __sk_buff *skb, const struct packet *p, const struct whose *w)
{
	if (!skb || !p || !w)
		return TC_ACT_SHOT;
	struct globals *g = global();
	if (!g)
		return CONTINUE;
	/* Asked as if it came from a VPC: the rule for the VXLAN device finds local addresses, IDC routes, and
	 * an unreachable route for all the rest, but never what is not told from a local address. */
	struct bpf_fib_lookup fib = { .ifindex = g->device };
	ask_for(&fib, p, skb->protocol == bpf_htons(ETH_P_IP));
	long found = bpf_fib_lookup(skb, &fib, sizeof(fib), 0);
	/* A device that somebody forbade to forward, or deleted, must not cost the host its sessions: the stack,
	 * too, has a rule for what comes from the IDC. */
	if (found >= 0 && found != BPF_FIB_LKUP_RET_NOT_FWDED && found != BPF_FIB_LKUP_RET_FWD_DISABLED)
		return drop(skb, p, w, REASON_NOT_LINKED);
	return w->asked ? answer(skb, w, ANSWER_STACK) : CONTINUE;
}

static __always_inline int is_for_many(const struct packet *p, const int family)
{
	__u32 first = family == 4 ? bpf_ntohl(p->dst.w[3]) : bpf_ntohl(p->dst.w[0]);
	if (family == 4)
		return first >> 28 == 0xe || first == ~0U;
	/* ff00::/8; link-local addresses are the host's own too */
	return first >> 24 == 0xff || first >> 22 == 0x3fa;
}

static __always_inline int from_idc_ip(struct __sk_buff *skb, const int family, const int asked)
{
	struct packet p = {};
	struct whose w = { .link = NO_COUNTER, .vpc = NO_COUNTER, .asked = asked };
	struct globals *g = global();
	if (!g)
		return CONTINUE;
	if (parse(skb, &p, ETH_LEN, family))
		return drop(skb, &p, &w, REASON_MALFORMED);
	if (is_for_many(&p, family))
		return asked ? answer(skb, &w, ANSWER_STACK) : CONTINUE;
	struct subnet *s = find_linked(0, &p.dst, family == 4 ? &g->linked4 : &g->linked6, family);
	if (!s)
		return unlinked(skb, &p, &w);
	if (!s->vni)
		return asked ? answer(skb, &w, ANSWER_STACK) : CONTINUE;
	w.vpc = s->counter;
	struct permit permit = find_permit(s->vni, &p.src, &s->classic, family);
	if (!permit.flags)
		return drop(skb, &p, &w, REASON_NOT_LINKED_SOURCE);
	w.link = permit.link;
	struct tunnel t = {
		.slot = find_endpoint(skb, s, &p, &p.dst, family),
		.vni = s->vni,
		.tos = permit.dscp == DSCP_COPY ? p.tos & ~ECN : permit.dscp << 2,
		.ecn = p.tos & ECN,
		.family = family,
	};
	if (host_of(t.slot) == HOST_NONE)
		return drop(skb, &p, &w, REASON_NO_SUCH_ENDPOINT);
	if (p.ttl <= 1)
		return refuse(skb, &p, &w, REASON_TTL_EXCEEDED, 0);
	t.whole = wire_octets(skb, &p) <= g->mtu;
	if (!t.whole && !may_be_cut(&p, &t))
		return refuse(skb, &p, &w, REASON_TOO_BIG, g->mtu);
	if (asked)
		return answer_tunnel(skb, &w, &t);
	if (permit.flags & PERMIT_TRACKED)
		note_flow(skb, &p, s->vni);
	forwarded(skb, g, &p, &w);
	t.sport = entropy(skb, &p);
	if (trim(skb, p.octets) || lower_ttl(skb, ETH_LEN, family))
		return drop(skb, &p, &w, REASON_INTERNAL);
	int verdict = encapsulate(skb, &t);
	if (verdict < 0)
		return drop(skb, &p, &w, REASON_INTERNAL);
	count_of(g, KIND_TO_VPC, &w, p.octets);
	count_total(TOTAL_ENCAPSULATED, p.octets);
	return verdict;
}

SEC("classifier")
int ask_idc(struct __sk_buff *skb)
{
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return from_idc_ip(skb, 4, 1);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return from_idc_ip(skb, 6, 1);
	return CONTINUE;
}

/* The next hop that the kernel's routes to the IDC name. */
static __always_inline long find_route(struct __sk_buff *skb, const struct globals *g, const struct packet *p,
				       struct bpf_fib_lookup *fib, const int family)
{
	__be16 ports[2] = {};
	if (!p->fragment && (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP))
		bpf_skb_load_bytes(skb, p->l4, ports, 4);
	__u32 octets = wire_octets(skb, p);
	fib->ifindex = g->device;
	fib->sport = ports[0];
	fib->dport = ports[1];
	fib->tot_len = octets > 0xffff ? 0xffff : octets;
	ask_for(fib, p, family == 4);
	if (family == 4)
		fib->tos = p->tos;
	/* Where the table's number is. */
	__builtin_memcpy(&fib->h_vlan_proto, &g->idc_table, 4);
	long found = bpf_fib_lookup(skb, fib, sizeof(*fib), FIB_DIRECT | FIB_TBID);
	/* An older kernel finds the table by its rule. */
	return found == -EINVAL ? bpf_fib_lookup(skb, fib, sizeof(*fib), 0) : found;
}

/* To the next hop. */
static __always_inline int forward(struct __sk_buff *skb, const struct globals *g, const struct packet *p,
				   const struct whose *w, const int family, const enum mode mode)
{
	struct bpf_fib_lookup fib = {};
	long found = find_route(skb, g, p, &fib, family);
	const int exists = found == BPF_FIB_LKUP_RET_SUCCESS || found == BPF_FIB_LKUP_RET_NO_NEIGH;
	if (mode == PAST) {
		if (!exists || p->ttl <= 1 || decapsulate(skb, family))
			return CONTINUE;
		count_total(TOTAL_DECAPSULATED, p->octets);
	} else {
		if (found == BPF_FIB_LKUP_RET_FRAG_NEEDED) {
			if (p->dont_fragment && p->ttl > 1)
				return refuse(skb, p, w, REASON_TOO_BIG, fib.mtu_result);
			if (p->ttl > 1 && mode == LIVE) {
				/* The stack has the same routes, and cuts it up. */
				count_of(g, KIND_FROM_VPC, w, p->octets);
				skb->mark = STACK_MARK;
				return CONTINUE;
			}
		} else if (!exists) {
			return drop(skb, p, w, REASON_NO_IDC_ROUTE);
		}
		if (p->ttl <= 1)
			return refuse(skb, p, w, REASON_TTL_EXCEEDED, 0);
		if (mode == ASKED) {
			skb->priority = fib.ifindex;
			skb->cb[1] = fib.ipv6_dst[0]; /* or IPv4's */
			skb->cb[2] = fib.ipv6_dst[1];
			skb->cb[3] = fib.ipv6_dst[2];
			skb->cb[4] = fib.ipv6_dst[3];
			return answer(skb, w, fib.family == FAMILY4 ? ANSWER_FORWARD : ANSWER_FORWARD6);
		}
		if (trim(skb, p->octets))
			return drop(skb, p, w, REASON_INTERNAL);
	}
	forwarded(skb, g, p, w);
	if (lower_ttl(skb, ETH_LEN, family))
		return drop(skb, p, w, REASON_INTERNAL);
	count_of(g, KIND_FROM_VPC, w, p->octets);
	return leave(&fib);
}

/* To another VM of the same scope. */
static __always_inline int switch_over(struct __sk_buff *skb, const struct globals *g, const struct packet *p,
				       struct whose *w, const struct subnet *to, const int family,
				       const enum mode mode)
{
	struct tunnel t = {
		.slot = find_endpoint(skb, to, p, &p->dst, family),
		.vni = to->vni,
		.tos = p->tos & ~ECN,
		.ecn = p->tos & ECN,
		.family = family,
	};
	__u32 counter = to->counter;
	int verdict;
	t.whole = wire_octets(skb, p) <= g->mtu;
	if (mode == PAST) {
		if (host_of(t.slot) == HOST_NONE || p->ttl <= 1)
			return CONTINUE;
		t.sport = entropy(skb, p);
		verdict = reencapsulate(skb, &t);
		if (verdict == CONTINUE)
			return CONTINUE;
		forwarded(skb, g, p, w);
		if (lower_ttl(skb, INNER_AT, family))
			return drop(skb, p, w, REASON_INTERNAL);
		count_total(TOTAL_DECAPSULATED, p->octets);
	} else {
		if (host_of(t.slot) == HOST_NONE)
			return drop(skb, p, w, REASON_NO_SUCH_ENDPOINT);
		if (p->ttl <= 1)
			return refuse(skb, p, w, REASON_TTL_EXCEEDED, 0);
		if (!t.whole && !may_be_cut(p, &t))
			return refuse(skb, p, w, REASON_TOO_BIG, g->mtu);
		if (mode == ASKED)
			return answer_tunnel(skb, w, &t);
		forwarded(skb, g, p, w);
		t.sport = entropy(skb, p);
		if (trim(skb, p->octets) || lower_ttl(skb, ETH_LEN, family))
			return drop(skb, p, w, REASON_INTERNAL);
		verdict = encapsulate(skb, &t);
	}
	if (verdict < 0)
		return drop(skb, p, w, REASON_INTERNAL);
	count_of(g, KIND_FROM_VPC, w, p->octets);
	w->vpc = counter;
	count_of(g, KIND_TO_VPC, w, p->octets);
	count_total(TOTAL_ENCAPSULATED, p->octets);
	return verdict;
}

static __always_inline int is_own(const struct vpc *vpc, __be32 addr)
{
	return (addr & vpc->own[0].mask) == vpc->own[0].net || (addr & vpc->own[1].mask) == vpc->own[1].net;
}

static __always_inline int from_vpc_ip(struct __sk_buff *skb, const struct envelope *e, const int family,
				       const enum mode mode)
{
	__u32 vni = e->vni;
	struct packet p = {};
	struct whose w = { .vni = vni, .link = NO_COUNTER, .vpc = NO_COUNTER, .asked = mode == ASKED };
	struct globals *g = global();
	struct vpc *vpc = bpf_map_lookup_elem(&vpcs, &vni);
	if (!g)
		return mode == PAST ? CONTINUE : TC_ACT_SHOT;
	const __u32 at = mode == PAST ? INNER_AT : ETH_LEN;
	int malformed = parse(skb, &p, at, family);
	if (mode == PAST && (malformed || !vpc || at + p.octets != skb->len || !tells_nothing(e->ecn, p.tos & ECN)))
		return CONTINUE;
	if (mode == LIVE)
		count_total(TOTAL_DECAPSULATED, p.octets);
	if (!vpc)
		return drop(skb, &p, &w, REASON_UNKNOWN_VNI);
	w.vpc = vpc->counter;
	if (malformed)
		return drop(skb, &p, &w, REASON_MALFORMED);
	const struct lengths *lengths = family == 4 ? &vpc->subnets4 : &vpc->subnets6;
	if (family != 4 || !is_own(vpc, p.src.w[3])) {
		struct subnet *from = find_subnet(vpc->scope, &p.src, lengths, family);
		if (!from || from->vni != vni)
			return drop_or_leave(skb, &p, &w, REASON_BAD_SOURCE, mode);
	}
	struct subnet *to = find_subnet(vpc->scope, &p.dst, lengths, family);
	if (to)
		return switch_over(skb, g, &p, &w, to, family, mode);
	struct permit permit = find_permit(vni, &p.dst, family == 4 ? &vpc->classic4 : &vpc->classic6, family);
	if (!permit.flags)
		return drop_or_leave(skb, &p, &w, REASON_NO_LINK, mode);
	w.link = permit.link;
	if (permit.flags & PERMIT_TRACKED && !is_reply(skb, &p, vni, mode == ASKED))
		return drop_or_leave(skb, &p, &w, REASON_NOT_A_REPLY, mode);
	return forward(skb, g, &p, &w, family, mode);
}

__noinline int past_device(struct __sk_buff *skb)
{
	struct globals *g = global();
	struct envelope e = {};
	if (!skb || !g || look_inside(skb, g, &e))
		return CONTINUE;
	return e.family == 4 ? from_vpc_ip(skb, &e, 4, PAST) : from_vpc_ip(skb, &e, 6, PAST);
}

/* What is not looked at as an IP packet. */
__noinline int drop_frame(struct __sk_buff *skb, __u32 vni, __u32 reason)
{
	if (!skb)
		return TC_ACT_SHOT;
	struct packet p = { .octets = skb->len };
	struct whose w = { .vni = vni, .link = NO_COUNTER, .vpc = NO_COUNTER };
	count_total(TOTAL_DECAPSULATED, p.octets);
	return drop(skb, &p, &w, reason);
}

/* Functions of their own, so that the stacks of both ways do not add up. */
__noinline int from_idc4(struct __sk_buff *skb)
{
	return skb ? from_idc_ip(skb, 4, 0) : CONTINUE;
}

__noinline int from_idc6(struct __sk_buff *skb)
{
	return skb ? from_idc_ip(skb, 6, 0) : CONTINUE;
}

SEC("classifier")
int from_idc(struct __sk_buff *skb)
{
	/* What is for another port or for all of them is not to be routed (RFC 1812 5.3.4). */
	if (skb->vlan_present || skb->pkt_type != PACKET_HOST)
		return CONTINUE;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		struct globals *g = global();
		void *data = (void *)(long)skb->data;
		struct outer *o = data + ETH_LEN;
		if (g && (void *)(o + 1) <= (void *)(long)skb->data_end && o->proto == IPPROTO_UDP &&
		    o->dst == bpf_htonl(g->local4))
			return past_device(skb);
		return from_idc4(skb);
	}
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return from_idc6(skb);
	return CONTINUE;
}

SEC("classifier")
int from_underlay(struct __sk_buff *skb)
{
	if (skb->pkt_type != PACKET_HOST || skb->protocol != bpf_htons(ETH_P_IP))
		return CONTINUE;
	return past_device(skb);
}

SEC("classifier")
int ask_vpc(struct __sk_buff *skb)
{
	struct envelope e = { .vni = skb->cb[0] };
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return from_vpc_ip(skb, &e, 4, ASKED);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return from_vpc_ip(skb, &e, 6, ASKED);
	return CONTINUE;
}

/* A function of its own, so that its stack does not add to that of what follows. */
__noinline int vni_of(struct __sk_buff *skb)
{
	struct bpf_tunnel_key key = {};
	if (!skb || (bpf_skb_get_tunnel_key(skb, &key, sizeof(key), 0) &&
		     bpf_skb_get_tunnel_key(skb, &key, sizeof(key), BPF_F_TUNINFO_IPV6)))
		return -1;
	return key.tunnel_id;
}

SEC("classifier")
int from_vpc(struct __sk_buff *skb)
{
	int vni = vni_of(skb);
	struct envelope e = { .vni = vni };
	if (vni < 0)
		return TC_ACT_SHOT;
	if (skb->vlan_present)
		return drop_frame(skb, vni, REASON_NOT_IP);
	/* What a hypervisor floods is not to be routed, least of all by each gateway of a group. */
	if (skb->pkt_type != PACKET_HOST)
		return drop_frame(skb, vni, REASON_OTHER_MAC);
	if (skb->protocol == bpf_htons(ETH_P_IP))
		return from_vpc_ip(skb, &e, 4, LIVE);
	if (skb->protocol == bpf_htons(ETH_P_IPV6))
		return from_vpc_ip(skb, &e, 6, LIVE);
	return drop_frame(skb, vni, REASON_NOT_IP);
}

/* bpf_fib_lookup and bpf_redirect_neigh are for programs under a license the kernel knows. */
char LICENSE[] SEC("license") = "Dual MIT/GPL";
