/* A packet as far as steering looks at it. Trusts nothing: what is shorter than its headers say is
 * malformed. */
#ifndef CCN_PACKET_H
#define CCN_PACKET_H

#define ETH_LEN 14
#define IPV4_LEN 20
#define IPV6_LEN 40
#define IP_DF 0x4000
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define ICMP_LEN 8

#define ICMP4_ECHO_REPLY 0
#define ICMP4_UNREACHABLE 3
#define ICMP4_REDIRECT 5
#define ICMP4_ECHO 8
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAMETER 12
#define ICMP6_TOO_BIG 2
#define ICMP6_TIME_EXCEEDED 3
#define ICMP6_ECHO 128
#define ICMP6_ECHO_REPLY 129

struct address128 {
	union {
		__be32 w[4];
		__be64 d[2];
	};
};

struct packet {
	/* IPv4 as ::ffff:a.b.c.d */
	struct address128 src;
	struct address128 dst;
	__u32 octets; /* of the IP packet */
	__u16 l4;     /* offset of what follows the IP headers, from the start of the frame */
	__u8 proto;   /* of it */
	__u8 tos;     /* traffic class */
	__u8 ttl;
	__u8 ip_len;  /* IPv4: octets of the header */
	__u8 dont_fragment;
	__u8 later; /* a fragment without the first octets of what it carries */
	__u8 fragment;
};

/* What a packet is about, in its own direction. An ICMP error is about the flow of the packet that
 * it quotes, so its addresses and ports are those of the quoted packet, turned around. Whoever has one filled in
 * initialises it: Linux 6.1 hands nothing else to a function. */
struct about {
	struct address128 src;
	struct address128 dst;
	__be16 sport; /* ICMP echo: the identifier */
	__be16 dport;
	__u8 proto;
	__u8 error;
	__u8 opens; /* may begin a flow */
	__u8 answers; /* may be the reply to another packet */
	__u8 begins; /* TCP: SYN alone */
	__u8 ends;   /* TCP: FIN or RST */
	__u8 pad[2];
};

enum parsed { PARSED, PARSED_MALFORMED };

/* Makes the first `len` octets directly readable. */
static __always_inline int pull(struct __sk_buff *skb, __u32 len)
{
	if ((void *)(long)skb->data + len <= (void *)(long)skb->data_end)
		return 0;
	if (len > skb->len)
		return -1;
	return bpf_skb_pull_data(skb, len);
}

static __always_inline void map4(struct address128 *to, __be32 addr)
{
	to->d[0] = 0;
	to->w[2] = bpf_htonl(0xffff);
	to->w[3] = addr;
}

static __always_inline __u32 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* `at` is a constant here and below: where the IP header is. */
static __always_inline int parse4(struct __sk_buff *skb, struct packet *p, const __u32 at)
{
	if (pull(skb, at + IPV4_LEN))
		return PARSED_MALFORMED;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + at;
	if ((void *)(ip + 1) > end)
		return PARSED_MALFORMED;
	__u32 len = ip->ihl * 4, octets = bpf_ntohs(ip->tot_len);
	/* A GSO packet of over 64 kB says 0 (BIG TCP). */
	if (!octets && skb->gso_size)
		octets = skb->len - at;
	if (ip->version != 4 || len < IPV4_LEN || octets < len || octets > skb->len - at)
		return PARSED_MALFORMED;
	__u16 frag = bpf_ntohs(ip->frag_off);
	map4(&p->src, ip->saddr);
	map4(&p->dst, ip->daddr);
	p->octets = octets;
	p->ip_len = len;
	p->l4 = at + len;
	p->proto = ip->protocol;
	p->tos = ip->tos;
	p->ttl = ip->ttl;
	p->dont_fragment = !!(frag & IP_DF);
	p->later = !!(frag & IP_OFFSET);
	p->fragment = !!(frag & (IP_MF | IP_OFFSET));
	__be32 *word = (__be32 *)ip;
	__u64 sum = (__u64)word[0] + word[1] + word[2] + word[3] + word[4];
	if (len > IPV4_LEN) {
		for (int i = 5; i < 15; i++) {
			__be32 option;
			if (i * 4 >= len)
				break;
			if (bpf_skb_load_bytes(skb, at + i * 4, &option, 4))
				return PARSED_MALFORMED;
			sum += option;
		}
	}
	return fold(sum) == 0xffff ? PARSED : PARSED_MALFORMED;
}

/* Extension headers that are looked behind; more than that, and there are no ports. */
#define EXTENSIONS 6

static __always_inline int parse6(struct __sk_buff *skb, struct packet *p, const __u32 at)
{
	if (pull(skb, at + IPV6_LEN))
		return PARSED_MALFORMED;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + at;
	if ((void *)(ip + 1) > end)
		return PARSED_MALFORMED;
	__u32 octets = bpf_ntohs(ip->payload_len) + IPV6_LEN;
	/* A GSO packet of over 64 kB says 0 (BIG TCP). */
	if (octets == IPV6_LEN && skb->gso_size)
		octets = skb->len - at;
	if (ip->version != 6 || octets > skb->len - at)
		return PARSED_MALFORMED;
	__builtin_memcpy(&p->src, &ip->saddr, 16);
	__builtin_memcpy(&p->dst, &ip->daddr, 16);
	p->octets = octets;
	p->ip_len = IPV6_LEN;
	p->proto = ip->nexthdr;
	p->tos = ip->priority << 4 | ip->flow_lbl[0] >> 4;
	p->ttl = ip->hop_limit;
	p->dont_fragment = 1;
	p->later = 0;
	p->fragment = 0;
	__u32 behind = at + IPV6_LEN;
	for (int i = 0; i < EXTENSIONS; i++) {
		__u8 next[4];
		if (p->proto != IPPROTO_HOPOPTS && p->proto != IPPROTO_ROUTING &&
		    p->proto != IPPROTO_DSTOPTS && p->proto != IPPROTO_FRAGMENT)
			break;
		if (behind + 8 > at + octets || bpf_skb_load_bytes(skb, behind, next, 4))
			return PARSED_MALFORMED;
		if (p->proto == IPPROTO_FRAGMENT) {
			__u16 frag = next[2] << 8 | next[3];
			p->later = !!(frag & 0xfff8);
			p->fragment = 1;
			behind += 8;
		} else {
			behind += 8 + next[1] * 8;
		}
		p->proto = next[0];
		if (p->later)
			break;
	}
	p->l4 = behind;
	return behind > at + octets ? PARSED_MALFORMED : PARSED;
}

static __always_inline int parse(struct __sk_buff *skb, struct packet *p, const __u32 at, const int family)
{
	return family == 4 ? parse4(skb, p, at) : parse6(skb, p, at);
}

/* The quoted packet of an ICMP error at `at`: 0 when it tells addresses and protocol. */
static __always_inline int quoted(struct __sk_buff *skb, __u32 at, struct about *a, const int family)
{
	__be16 ports[2] = {};
	if (family == 4) {
		struct iphdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 4 || ip.ihl < 5)
			return -1;
		map4(&a->src, ip.daddr);
		map4(&a->dst, ip.saddr);
		a->proto = ip.protocol;
		if (ip.frag_off & bpf_htons(IP_OFFSET))
			return -1;
		at += ip.ihl * 4;
	} else {
		struct ipv6hdr ip;
		if (bpf_skb_load_bytes(skb, at, &ip, sizeof(ip)) || ip.version != 6)
			return -1;
		__builtin_memcpy(&a->src, &ip.daddr, 16);
		__builtin_memcpy(&a->dst, &ip.saddr, 16);
		a->proto = ip.nexthdr;
		at += IPV6_LEN;
	}
	if (a->proto == IPPROTO_TCP || a->proto == IPPROTO_UDP) {
		if (bpf_skb_load_bytes(skb, at, ports, 4))
			return -1;
		a->sport = ports[1];
		a->dport = ports[0];
	} else if (a->proto == IPPROTO_ICMP || a->proto == IPPROTO_ICMPV6) {
		if (bpf_skb_load_bytes(skb, at + 4, ports, 2))
			return -1;
		a->sport = a->dport = ports[0];
	}
	return 0;
}

/* Fills in what a packet is about; nonzero when it does not tell. */
__noinline int find_about(struct __sk_buff *skb, const struct packet *p, struct about *a)
{
	if (!skb || !p || !a)
		return -1;
	a->src = p->src;
	a->dst = p->dst;
	a->sport = a->dport = 0;
	a->proto = p->proto;
	a->error = a->begins = a->ends = 0;
	a->opens = a->answers = 1;
	if (p->later)
		return -1;
	__u8 head[14] = {};
	switch (p->proto) {
	case IPPROTO_TCP:
		if (bpf_skb_load_bytes(skb, p->l4, head, 14))
			return -1;
		a->ends = !!(head[13] & 5);
		a->begins = (head[13] & 0x12) == 2;
		break;
	case IPPROTO_UDP:
		if (bpf_skb_load_bytes(skb, p->l4, head, 4))
			return -1;
		break;
	case IPPROTO_ICMP:
		if (bpf_skb_load_bytes(skb, p->l4, head, 6))
			return -1;
		if (head[0] == ICMP4_UNREACHABLE || head[0] == ICMP4_TIME_EXCEEDED ||
		    head[0] == ICMP4_PARAMETER) {
			a->error = 1;
			a->opens = 0;
			return quoted(skb, p->l4 + ICMP_LEN, a, 4);
		}
		a->opens = head[0] == ICMP4_ECHO;
		a->answers = head[0] == ICMP4_ECHO_REPLY;
		__builtin_memcpy(&a->sport, head + 4, 2);
		a->dport = a->sport;
		return 0;
	case IPPROTO_ICMPV6:
		if (bpf_skb_load_bytes(skb, p->l4, head, 6))
			return -1;
		if (head[0] >= 1 && head[0] <= 4) {
			a->error = 1;
			a->opens = 0;
			return quoted(skb, p->l4 + ICMP_LEN, a, 6);
		}
		a->opens = head[0] == ICMP6_ECHO;
		a->answers = head[0] == ICMP6_ECHO_REPLY;
		__builtin_memcpy(&a->sport, head + 4, 2);
		a->dport = a->sport;
		return 0;
	default:
		return 0;
	}
	__builtin_memcpy(&a->sport, head, 2);
	__builtin_memcpy(&a->dport, head + 2, 2);
	return 0;
}

/* Octets of the largest packet that leaves, as a router downstream sees it. */
static __always_inline __u32 wire_octets(struct __sk_buff *skb, const struct packet *p)
{
	__u32 size = skb->gso_size;
	if (!size)
		return p->octets;
	__u8 offset = 0;
	if (p->proto == IPPROTO_UDP)
		return p->l4 - ETH_LEN + 8 + size;
	if (bpf_skb_load_bytes(skb, p->l4 + 12, &offset, 1))
		return p->octets;
	return p->l4 - ETH_LEN + (offset >> 4) * 4 + size;
}

#endif
