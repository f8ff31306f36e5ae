/* ICMP errors of the gateway: time exceeded and too big (RFC 792, 1191, 4443, 1812 section 4.3.2).
 *
 * The packet at fault becomes the error in place. Nothing is said about ICMP errors, later fragments of
 * IPv4, or packets of no single host, nor more than ICMP_PER_SECOND times a processor and second. */
#ifndef CCN_ICMP_H
#define CCN_ICMP_H

#include "count.h"

#define ICMP_PER_SECOND 1000
#define ICMP_BURST 50
#define QUOTE4 548  /* an error of 576 octets: RFC 1812 */
#define QUOTE6 1232 /* an error of 1280 octets: RFC 4443 */

enum error { ERROR_TIME_EXCEEDED, ERROR_TOO_BIG };

/* The sum of the quoted octets from `at` to `end`, as the receiver will see them. A sender on this
 * very machine may have left the transport checksum to the device (it then holds the sum of the pseudo
 * header): the kernel fills it in when the packet leaves, and the octets it covers then sum up to the
 * complement of what is there now. */
static __always_inline __u64 sum_quote(struct __sk_buff *skb, const struct packet *p, __u32 quote, const int family)
{
	__u32 start = family == 4 ? ETH_LEN + p->ip_len : ETH_LEN;
	__u32 at = p->proto == IPPROTO_TCP ? p->l4 + 16 : p->proto == IPPROTO_UDP ? p->l4 + 6 : 0;
	__u32 until = ETH_LEN + quote;
	__u64 sum = 0;
	__u16 check = 0;
	if (at && !p->fragment && at + 2 <= until && !bpf_skb_load_bytes(skb, at, &check, 2)) {
		__u64 pseudo = (__u64)bpf_htons(p->proto) + bpf_htons(p->octets - (p->l4 - ETH_LEN));
		if (family == 4)
			pseudo += (__u64)p->src.w[3] + p->dst.w[3];
		else
			pseudo += (__u64)p->src.w[0] + p->src.w[1] + p->src.w[2] + p->src.w[3] +
				  p->dst.w[0] + p->dst.w[1] + p->dst.w[2] + p->dst.w[3];
		if (check == fold(pseudo)) {
			sum = (__u16)~check;
			until = p->l4;
		}
	}
	for (int i = 0; i < QUOTE6 / 4; i++) {
		__be32 word;
		__u32 offset = start + i * 4;
		if (offset >= until || bpf_skb_load_bytes(skb, offset, &word, 4))
			break;
		sum += word;
	}
	return sum;
}

static __always_inline int may_be_told(const struct packet *p, const int family)
{
	if (family == 4) {
		__u32 src = bpf_ntohl(p->src.w[3]);
		/* 0/8, 127/8, 224/3 */
		return src >> 24 != 0 && src >> 24 != 127 && src >> 29 != 7;
	}
	return p->src.w[0] >> 0 != 0 || p->src.w[1] || p->src.w[2] ||
	       (p->src.w[3] && p->src.w[3] != bpf_htonl(1));
}

__noinline int answer4(struct __sk_buff *skb, const struct packet *p, __u32 error, __u32 mtu)
{
	__u32 zero = 0;
	__u8 type;
	if (!skb || !p)
		return -1;
	struct globals *g = bpf_map_lookup_elem(&globals, &zero);
	if (!g || !g->icmp4 || p->later || !may_be_told(p, 4))
		return -1;
	if (p->proto == IPPROTO_ICMP) {
		if (bpf_skb_load_bytes(skb, p->l4, &type, 1))
			return -1;
		if (type == ICMP4_UNREACHABLE || type == ICMP4_REDIRECT || type == ICMP4_TIME_EXCEEDED ||
		    type == ICMP4_PARAMETER || type == 4)
			return -1;
	}
	if (!take(BUCKET_ICMP, ICMP_PER_SECOND, ICMP_BURST))
		return -1;
	struct {
		__u8 version;
		__u8 tos;
		__be16 len;
		__be32 fragment;
		__u8 ttl;
		__u8 proto;
		__u16 check;
		__be32 src;
		__be32 dst;
		__u8 type;
		__u8 code;
		__u16 icmp_check;
		__be16 unused;
		__be16 mtu;
	} head = { .version = 0x45, .tos = 0xc0, .ttl = 64, .proto = IPPROTO_ICMP };
	__u32 quote = (p->octets > QUOTE4 ? QUOTE4 : p->octets) & ~3U;
	head.len = bpf_htons(sizeof(head) + quote);
	head.src = g->icmp4;
	head.dst = p->src.w[3];
	head.type = error == ERROR_TOO_BIG ? ICMP4_UNREACHABLE : ICMP4_TIME_EXCEEDED;
	head.code = error == ERROR_TOO_BIG ? 4 : 0;
	head.mtu = error == ERROR_TOO_BIG ? bpf_htons(mtu) : 0;
	__be32 *word = (__be32 *)&head;
	head.check = ~fold((__u64)word[0] + word[1] + word[2] + word[3] + word[4]);
	/* A header that includes its checksum sums up to nothing. */
	__u64 sum = sum_quote(skb, p, quote, 4);
	head.icmp_check = ~fold(sum + word[5] + word[6]);
	if (bpf_skb_change_tail(skb, ETH_LEN + quote, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(head), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, ETH_LEN, &head, sizeof(head), 0))
		return -1;
	return 0;
}

__noinline int answer6(struct __sk_buff *skb, const struct packet *p, __u32 error, __u32 mtu)
{
	__u32 zero = 0;
	__u8 type;
	if (!skb || !p)
		return -1;
	struct globals *g = bpf_map_lookup_elem(&globals, &zero);
	/* Later fragments are answered in IPv6: RFC 4443 2.4 (e) does not except them. */
	if (!g || !may_be_told(p, 6))
		return -1;
	if (p->proto == IPPROTO_ICMPV6 && !p->later) {
		/* Below 128 are the errors; 137 is a redirect. */
		if (bpf_skb_load_bytes(skb, p->l4, &type, 1) || type < 128 || type == 137)
			return -1;
	}
	struct {
		__be32 flow;
		__be16 len;
		__u8 proto;
		__u8 ttl;
		struct address128 src;
		struct address128 dst;
		__u8 type;
		__u8 code;
		__u16 check;
		__be32 mtu;
	} head = { .flow = bpf_htonl(0x60000000), .proto = IPPROTO_ICMPV6, .ttl = 64 };
	__builtin_memcpy(&head.src, g->icmp6, 16);
	if (!head.src.d[0] && !head.src.d[1])
		return -1;
	if (!take(BUCKET_ICMP, ICMP_PER_SECOND, ICMP_BURST))
		return -1;
	__u32 quote = (p->octets > QUOTE6 ? QUOTE6 : p->octets) & ~3U;
	head.len = bpf_htons(ICMP_LEN + quote);
	head.dst = p->src;
	head.type = error == ERROR_TOO_BIG ? ICMP6_TOO_BIG : ICMP6_TIME_EXCEEDED;
	head.mtu = error == ERROR_TOO_BIG ? bpf_htonl(mtu) : 0;
	__u64 sum = sum_quote(skb, p, quote, 6);
	__be32 *word = (__be32 *)&head;
#pragma unroll
	for (int i = 2; i < 12; i++)
		sum += word[i]; /* addresses, type, code, MTU */
	sum += (__u64)head.len + bpf_htons(IPPROTO_ICMPV6);
	head.check = ~fold(sum);
	if (bpf_skb_change_tail(skb, ETH_LEN + quote, 0) ||
	    bpf_skb_adjust_room(skb, sizeof(head), BPF_ADJ_ROOM_MAC, 0) ||
	    bpf_skb_store_bytes(skb, ETH_LEN, &head, sizeof(head), 0))
		return -1;
	return 0;
}

#endif
