/* Replies over links of mode classic-to-vpc: only what a classic host began may come back. */
#ifndef CCN_FLOW_H
#define CCN_FLOW_H

#include "count.h"

/* How long a flow may be silent: RFC 5382 (TCP established, transitory), 4787 (UDP), 5508 (ICMP). */
#define TCP_ESTABLISHED (7440 * SECOND)
#define TCP_TRANSITORY (240 * SECOND)
#define UDP_SILENCE (300 * SECOND)
#define OTHER_SILENCE (60 * SECOND)

static __always_inline void key_of(__u32 vni, const struct about *a, int reply, struct flow *key)
{
	const struct address128 *classic = reply ? &a->dst : &a->src, *vpc = reply ? &a->src : &a->dst;
	__builtin_memset(key, 0, sizeof(*key));
	key->vni = vni;
	__builtin_memcpy(key->classic, classic, 16);
	__builtin_memcpy(key->vpc, vpc, 16);
	key->classic_port = reply ? a->dport : a->sport;
	key->vpc_port = reply ? a->sport : a->dport;
	key->proto = a->proto;
}

static __always_inline __u64 silence(const struct flow *key, __u32 flags)
{
	if (key->proto == IPPROTO_TCP)
		return flags == FLOW_REPLIED ? TCP_ESTABLISHED : TCP_TRANSITORY;
	return key->proto == IPPROTO_UDP ? UDP_SILENCE : OTHER_SILENCE;
}

/* A packet of a classic host to a VPC: begins a flow, or keeps it. */
__noinline int note_flow(struct __sk_buff *skb, const struct packet *p, __u32 vni)
{
	struct about a = {};
	struct flow key;
	if (!skb || !p)
		return 0;
	if (find_about(skb, p, &a) || a.error)
		return 0;
	key_of(vni, &a, 0, &key);
	__u64 now = bpf_ktime_get_ns();
	struct flow_state *known = bpf_map_lookup_elem(&flows, &key);
	if (known && now - known->seen <= silence(&key, known->flags)) {
		if (a.begins && known->flags & FLOW_CLOSING)
			known->flags = 0; /* the ports are used again */
		else if (a.ends)
			known->flags |= FLOW_CLOSING;
		if (now - known->seen > SECOND)
			known->seen = now;
		return 0;
	}
	if (!a.opens)
		return 0;
	struct flow_state begun = { .seen = now, .flags = a.ends ? FLOW_CLOSING : 0 };
	if (!bpf_map_update_elem(&flows, &key, &begun, BPF_ANY))
		count_total(TOTAL_FLOWS, !known);
	return 0;
}

/* Whether a packet of a VPC answers one of a classic host. */
__noinline int is_reply(struct __sk_buff *skb, const struct packet *p, __u32 vni, __u32 asked)
{
	struct about a = {};
	struct flow key;
	if (!skb || !p)
		return 0;
	if (find_about(skb, p, &a) || !a.answers)
		return 0;
	/* An error about a flow is for the host that began it, and nobody else. */
	if (a.error && (p->dst.d[0] != a.dst.d[0] || p->dst.d[1] != a.dst.d[1]))
		return 0;
	key_of(vni, &a, 1, &key);
	struct flow_state *known = bpf_map_lookup_elem(&flows, &key);
	if (!known)
		return 0;
	__u64 now = bpf_ktime_get_ns();
	if (now - known->seen > silence(&key, known->flags))
		return 0;
	if (a.error || asked)
		return 1;
	if (!(known->flags & FLOW_REPLIED) || a.ends)
		known->flags |= FLOW_REPLIED | (a.ends ? FLOW_CLOSING : 0);
	if (now - known->seen > SECOND)
		known->seen = now;
	return 1;
}

#endif
