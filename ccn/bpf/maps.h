/* The maps. Sizes are what they begin with: the agent has hashes and counters grow, and sets the others. */
#ifndef CCN_MAPS_H
#define CCN_MAPS_H

#include "layout.h"

#define HASH(NAME, KEY, VALUE, SIZE)                                    \
	struct {                                                        \
		__uint(type, BPF_MAP_TYPE_HASH);                        \
		__uint(map_flags, BPF_F_NO_PREALLOC);                   \
		__uint(max_entries, SIZE);                              \
		__type(key, KEY);                                       \
		__type(value, VALUE);                                   \
	} NAME SEC(".maps")

/* Of these the agent has the octets mapped: it stores without a system call. */
#define SHARED_ARRAY(NAME, VALUE, SIZE)                                 \
	struct {                                                        \
		__uint(type, BPF_MAP_TYPE_ARRAY);                       \
		__uint(map_flags, BPF_F_MMAPABLE);                      \
		__uint(max_entries, SIZE);                              \
		__type(key, __u32);                                     \
		__type(value, VALUE);                                   \
	} NAME SEC(".maps")

#define PER_CPU(NAME, VALUE, SIZE)                                      \
	struct {                                                        \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                \
		__uint(max_entries, SIZE);                              \
		__type(key, __u32);                                     \
		__type(value, VALUE);                                   \
	} NAME SEC(".maps")

SHARED_ARRAY(globals, struct globals, 1);
SHARED_ARRAY(slots, struct slot, 2097152);
SHARED_ARRAY(hosts, struct host, 65535);
SHARED_ARRAY(classics4, struct bucket, 1025);

HASH(vpcs, __u32, struct vpc, 8192);
HASH(subnets4, struct prefix4, struct subnet, 16384);
HASH(subnets6, struct prefix6, struct subnet, 16384);
HASH(linked4, struct prefix4, struct subnet, 16384);
HASH(linked6, struct prefix6, struct subnet, 16384);
HASH(classics6, struct prefix6, struct permit, 16384);
HASH(sparse, struct address, struct slot, 32768);

/* The sizes of these are for one processor. */
SHARED_ARRAY(link_counters, struct count, 1024 * KINDS);
SHARED_ARRAY(vpc_counters, struct count, 4096 * KINDS);
PER_CPU(drops, struct count, REASONS);
PER_CPU(last_drops, struct sample, REASONS);
PER_CPU(totals, struct count, TOTALS);

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct flow);
	__type(value, struct flow_state);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 262144);
} events SEC(".maps");

/* Token buckets of this processor. */
struct tokens {
	__u64 filled; /* nanoseconds since boot */
	__u64 left;
};
enum { BUCKET_ICMP, BUCKET_TRACE, BUCKETS };
PER_CPU(buckets, struct tokens, BUCKETS);

#endif
