/* Whose a destination is, and who may reach it. */
#ifndef CCN_LOOKUP_H
#define CCN_LOOKUP_H

#include "maps.h"
#include "packet.h"

static __always_inline struct prefix4 key4(__u32 space, __be32 addr, __u32 len)
{
	struct prefix4 key = { space << 8 | len, addr & bpf_htonl(len ? ~0U << (32 - len) : 0) };
	return key;
}

static __always_inline struct prefix6 key6(__u32 space, const struct address128 *addr, __u32 len)
{
	struct prefix6 key = { space << 8 | len };
	__u64 high = bpf_be64_to_cpu(addr->d[0]), low = bpf_be64_to_cpu(addr->d[1]);
	if (len <= 64) {
		high &= len ? ~0ULL << (64 - len) : 0;
		low = 0;
	} else {
		low &= ~0ULL << (128 - len);
	}
	struct address128 net;
	net.d[0] = bpf_cpu_to_be64(high);
	net.d[1] = bpf_cpu_to_be64(low);
	__builtin_memcpy(key.net, &net, 16);
	return key;
}

/* The longest prefix of a space that holds an address. `map4` and `map6` are constants. */
#define LONGEST(NAME, VALUE, MAP4, MAP6)                                                       \
	static __always_inline VALUE *NAME(__u32 space, const struct address128 *addr,         \
					   const struct lengths *lengths, const int family)    \
	{                                                                                      \
		for (int i = 0; i < LENGTHS; i++) {                                            \
			__u32 len = lengths->len[i];                                           \
			VALUE *found;                                                          \
			if (len > (family == 4 ? 32 : 128))                                    \
				break;                                                         \
			if (family == 4) {                                                     \
				struct prefix4 key = key4(space, addr->w[3], len);             \
				found = bpf_map_lookup_elem(&MAP4, &key);                      \
			} else {                                                               \
				struct prefix6 key = key6(space, addr, len);                   \
				found = bpf_map_lookup_elem(&MAP6, &key);                      \
			}                                                                      \
			if (found)                                                             \
				return found;                                                  \
		}                                                                              \
		return NULL;                                                                   \
	}

LONGEST(find_linked, struct subnet, linked4, linked6)
LONGEST(find_subnet, struct subnet, subnets4, subnets6)

static __always_inline __u64 slot_at(__u32 number)
{
	struct slot *slot = bpf_map_lookup_elem(&slots, &number);
	return slot ? *(volatile __u64 *)slot : 0;
}

static __always_inline __u32 host_of(__u64 slot)
{
	return slot & 0xffff;
}

static __always_inline __u64 mix(__u64 hash, __u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ hash >> 32;
}

static __always_inline __u32 at_once(const struct permit *permit)
{
	return *(volatile const __u32 *)permit;
}

/* All ones for 0, 0 for all others, without a branch: which way a key is in is not to be guessed, and while its
 * bucket is on its way from memory a processor goes on only as far as it guesses right. */
static __always_inline __u32 ones_if_zero(__u64 value)
{
	__u64 negative = -value;
	asm volatile("" : "+r"(negative)); /* the compiler would make a branch of it */
	return ((value | negative) >> 63) - 1;
}

/* The permit of a VPC for a classic address, a number in host order. Answers with its octets, or 0. */
__noinline __u32 find_permit4(__u32 vni, __u32 addr, const struct lengths *lengths)
{
	__u32 number = 0;
	struct bucket *b = bpf_map_lookup_elem(&classics4, &number);
	if (!lengths || !b)
		return 0;
	__u32 mask = b->key[0];
	for (int i = 0; i < LENGTHS; i++) {
		__u32 len = lengths->len[i];
		if (len > 32)
			break;
		__u64 key = (__u64)(vni << 8 | len) << 32 | (addr & (len ? ~0U << (32 - len) : 0));
		__u64 home = mix(mix(0, key), 0);
		for (int n = 0; n < REACH; n++) {
			number = 1 + ((__u32)(home + n) & mask);
			b = bpf_map_lookup_elem(&classics4, &number);
			if (!b)
				break;
			__u32 found = 0;
#pragma unroll
			for (int way = 0; way < WAYS; way++)
				found |= at_once(&b->permit[way]) & ones_if_zero(b->key[way] ^ key);
			if (found)
				return found;
			if (!b->passed)
				break;
		}
	}
	return 0;
}

/* The permit of a VPC for a classic address; one without flags where there is none. */
static __always_inline struct permit find_permit(__u32 vni, const struct address128 *addr,
						 const struct lengths *lengths, const int family)
{
	struct permit permit = {};
	if (family == 4) {
		__u32 octets = find_permit4(vni, bpf_ntohl(addr->w[3]), lengths);
		__builtin_memcpy(&permit, &octets, sizeof(permit));
		return permit;
	}
	for (int i = 0; i < LENGTHS; i++) {
		__u32 len = lengths->len[i];
		if (len > 128)
			break;
		struct prefix6 key = key6(vni, addr, len);
		struct permit *found = bpf_map_lookup_elem(&classics6, &key);
		if (found)
			return *found;
	}
	return permit;
}

/* The same on every gateway: a flow keeps its node when routers choose another one. A packet in
 * fragments has no ports. */
static __always_inline __u32 flow_hash(struct __sk_buff *skb, const struct packet *p)
{
	struct about a = {};
	if (p->fragment || find_about(skb, p, &a)) {
		a.src = p->src;
		a.dst = p->dst;
		a.proto = p->proto;
		a.sport = a.dport = 0;
	}
	__u64 hash = mix(a.proto, a.src.d[0]);
	hash = mix(hash, a.src.d[1]);
	hash = mix(hash, a.dst.d[0]);
	hash = mix(hash, a.dst.d[1]);
	return mix(hash, (__u32)a.sport << 16 | a.dport) >> 16;
}

/* Where an address of a subnet is; 0 when nobody has it. */
static __always_inline __u64 find_endpoint(struct __sk_buff *skb, const struct subnet *s,
					   const struct packet *p, const struct address128 *addr,
					   const int family)
{
	__u64 slot = 0, at;
	int inside;
	if (family == 4) {
		at = bpf_ntohl(addr->w[3]) - s->first;
		inside = at < s->span;
	} else {
		at = bpf_be64_to_cpu(addr->d[1]) - s->first;
		inside = at < s->span && bpf_be64_to_cpu(addr->d[0]) == s->high;
	}
	if (inside) {
		slot = slot_at(s->base + at);
	} else if (s->flags & SUBNET_SPARSE) {
		struct address key = { .vni = s->vni };
		__builtin_memcpy(key.addr, addr, 16);
		struct slot *found = bpf_map_lookup_elem(&sparse, &key);
		if (found)
			__builtin_memcpy(&slot, found, 8);
	}
	if (host_of(slot) == HOST_SLB) {
		__u32 mask = slot >> 16 & 0xffff, base = slot >> 32;
		slot = slot_at(base + (flow_hash(skb, p) & mask));
	}
	return slot;
}

#endif
