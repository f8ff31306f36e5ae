/* Counting and sampling. Counters are of one processor, so they need no atomics. */
#ifndef CCN_COUNT_H
#define CCN_COUNT_H

#include "maps.h"
#include "packet.h"

#define NO_COUNTER (~0U)
#define SAMPLES_PER_SECOND 1000
#define SECOND 1000000000ULL

/* Whose packet it is, as far as is known by now. */
struct whose {
	__u32 vni; /* it came with; 0: plain */
	__u32 link; /* or NO_COUNTER */
	__u32 vpc;  /* or NO_COUNTER */
	__u32 asked; /* for a test: nothing is to be counted */
};

/* Takes a token; 0 when there is none. */
static __always_inline int take(__u32 which, __u64 per_second, __u64 burst)
{
	struct tokens *b = bpf_map_lookup_elem(&buckets, &which);
	if (!b)
		return 0;
	__u64 now = bpf_ktime_get_ns(), passed = now - b->filled;
	__u64 more = passed > SECOND ? per_second : passed * per_second / SECOND;
	if (more) {
		b->filled = now;
		b->left = b->left + more > burst ? burst : b->left + more;
	}
	if (!b->left)
		return 0;
	b->left--;
	return 1;
}

static __always_inline void count_total(__u32 which, __u32 octets)
{
	struct count *c = bpf_map_lookup_elem(&totals, &which);
	if (!c)
		return;
	c->packets++;
	c->octets += octets;
}

/* Adds to a counter of this processor's. NO_COUNTER is none. */
static __always_inline void count(void *counters, const struct globals *g, enum kind kind, __u32 number,
				  __u32 octets)
{
	if (number == NO_COUNTER)
		return;
	__u32 run = (number / COUNTER_RUN * g->cpus + bpf_get_smp_processor_id()) * KINDS + kind;
	__u32 at = run * COUNTER_RUN + number % COUNTER_RUN;
	struct count *c = bpf_map_lookup_elem(counters, &at);
	if (!c)
		return;
	c->packets++;
	c->octets += octets;
}

static __always_inline void count_of(const struct globals *g, enum kind kind, const struct whose *w, __u32 octets)
{
	count(&link_counters, g, kind, w->link, octets);
	count(&vpc_counters, g, kind, w->vpc, octets);
}

static __always_inline int is_watched(const struct globals *g, const struct packet *p, __u32 link)
{
	if (g->trace_link != NO_COUNTER && g->trace_link != link)
		return 0;
	const __u64 *addr = (const __u64 *)g->trace_addr;
	if (!addr[0] && !addr[1])
		return 1;
	return (addr[0] == p->src.d[0] && addr[1] == p->src.d[1]) ||
	       (addr[0] == p->dst.d[0] && addr[1] == p->dst.d[1]);
}

static __always_inline void fill(struct __sk_buff *skb, const struct packet *p, const struct whose *w,
				 __u8 reason, struct sample *s)
{
	__be16 ports[2] = {};
	s->time = bpf_ktime_get_ns();
	__builtin_memcpy(s->src, &p->src, 16);
	__builtin_memcpy(s->dst, &p->dst, 16);
	s->vni = w->vni;
	s->link = w->link;
	s->octets = p->octets;
	if (!p->later && (p->proto == IPPROTO_TCP || p->proto == IPPROTO_UDP))
		bpf_skb_load_bytes(skb, p->l4, ports, 4);
	s->sport = bpf_ntohs(ports[0]);
	s->dport = bpf_ntohs(ports[1]);
	s->proto = p->proto;
	s->reason = reason;
	__builtin_memset(s->pad, 0, sizeof(s->pad));
}

__noinline int trace(struct __sk_buff *skb, const struct packet *p, const struct whose *w, __u32 reason)
{
	if (!skb || !p || !w || !take(BUCKET_TRACE, SAMPLES_PER_SECOND, SAMPLES_PER_SECOND))
		return 0;
	struct sample *s = bpf_ringbuf_reserve(&events, sizeof(*s), 0);
	if (!s)
		return 0;
	fill(skb, p, w, reason, s);
	bpf_ringbuf_submit(s, 0);
	return 0;
}

__noinline int drop(struct __sk_buff *skb, const struct packet *p, const struct whose *w, __u32 reason)
{
	__u32 zero = 0;
	if (!skb || !p || !w)
		return TC_ACT_SHOT;
	if (w->asked) {
		skb->cb[0] = (ANSWER_DROP + reason) | w->link << 8;
		return TC_ACT_SHOT;
	}
	struct count *d = bpf_map_lookup_elem(&drops, &reason);
	if (d) {
		d->packets++;
		d->octets += p->octets;
	}
	struct sample *last = bpf_map_lookup_elem(&last_drops, &reason);
	if (last)
		fill(skb, p, w, reason, last);
	struct globals *g = bpf_map_lookup_elem(&globals, &zero);
	if (!g)
		return TC_ACT_SHOT;
	count_of(g, KIND_DROPPED, w, p->octets);
	if (g->trace & TRACE_DROPS && is_watched(g, p, w->link))
		trace(skb, p, w, reason);
	return TC_ACT_SHOT;
}

static __always_inline void forwarded(struct __sk_buff *skb, const struct globals *g, const struct packet *p,
				      const struct whose *w)
{
	if (g->trace & TRACE_FORWARDED && is_watched(g, p, w->link))
		trace(skb, p, w, REASONS);
}

#endif
