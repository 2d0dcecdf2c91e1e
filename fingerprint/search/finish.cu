// The finish of a product, one kernel each. Compiled by CuPy (NVRTC) with --fmad=false, and for the
// tests by any C++ compiler, where a thread of the GPU is a thread.
//
// Every operation is the rounded one of IEEE 754, in the order of `correlate` and `best`: the same
// bits as the path in torch. Maxima and counts are merged by integer atomics, which have no order.

constexpr int BINS = 4096;    // as best.BINS
constexpr int STRIP = 8;      // slices that one thread walks through
constexpr long long NOWHERE = 0x7fffffffffffffffLL;

// Doubles as integers that compare alike (no NaN). It is its own inverse.
__device__ long long ordered(double r) {
    long long bits = __double_as_longlong(r);
    return bits ^ ((bits >> 63) & 0x7fffffffffffffffLL);
}

__device__ int bin_of(double r) {
    long long bin = (long long)__dmul_rn(__dadd_rn(r, 1.0), BINS / 2);
    return bin < 0 ? 0 : bin >= BINS ? BINS - 1 : (int)bin;
}

// r from the sums of a product; false where an image is constant
struct Raw {
    const int* product;  // [piece][slice][query]
    int pieces;
    long long piece_step, row_step, n;
    const long long *q_total, *q_squares, *s_total, *s_squares;

    __device__ bool operator()(int s, int q, double& r) const {
        long long cross = 0;
        for (int k = 0; k < pieces; k++) cross += product[k * piece_step + s * row_step + q];
        long long sx = q_total[q], sy = s_total[s];
        long long a = n * q_squares[q] - sx * sx, b = n * s_squares[s] - sy * sy;
        if (a == 0 || b == 0) return false;
        double below = __dsqrt_rn(__dmul_rn(__ll2double_rn(a), __ll2double_rn(b)));
        r = __ddiv_rn(__ll2double_rn(n * cross - sx * sy), below);
        return true;
    }
};

// r that was computed before; false where it is NaN
struct Given {
    const double* r;
    long long q_step, s_step;

    __device__ bool operator()(int s, int q, double& value) const {
        value = r[q * q_step + s * s_step];
        return value == value;
    }
};

// Who is who in a block of slices, and where the best of it goes. `skip` below: the slices of the
// tile before this block.
struct Tile {
    int n_queries, n_slices, n_patients;
    const int* own;               // [query]
    const int* patient;           // [slice], -1: not compared with anybody
    const unsigned char* capped;  // [slice]
    long long *key, *at;          // [all, capped][patient][query]: ordered r, slice
    unsigned long long* counts;   // [bin]
    long long* part_key;          // [all, capped][slice][query], where a stretch of slices begins
    int* part_at;
};

// Best of a stretch of slices of one patient: merged by maximum, remembered for `lowest`.
__device__ void give(const Tile& t, int kind, int begin, int q, double r, int s) {
    long long part = ((long long)kind * t.n_slices + begin) * t.n_queries + q;
    t.part_at[part] = s;
    if (s < 0) return;
    long long mine = ordered(r);
    t.part_key[part] = mine;
    long long cell = ((long long)kind * t.n_patients + t.patient[begin]) * t.n_queries + q;
    // 64 bits hold r or its slice, not both: whoever raises r forgets the slice of the lower one,
    // and `lowest` finds the new one, when all threads are done
    if (atomicMax(&t.key[cell], mine) < mine) t.at[cell] = NOWHERE;
}

template <typename R>
__device__ void tally(const R& r_of, const Tile& t) {
    __shared__ unsigned int counts[BINS];
    int thread = threadIdx.y * blockDim.x + threadIdx.x, threads = blockDim.x * blockDim.y;
    for (int i = thread; i < BINS; i += threads) counts[i] = 0;
    __syncthreads();
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    int low = (blockIdx.y * blockDim.y + threadIdx.y) * STRIP;
    int high = low + STRIP < t.n_slices ? low + STRIP : t.n_slices;
    if (q < t.n_queries) {
        int home = t.own[q], begin = low, all_at = -1, few_at = -1;
        double r = 0, all = 0, few = 0;
        for (int s = low; s < high; s++) {
            int patient = t.patient[s];
            if (patient >= 0 && patient != home && r_of(s, q, r)) {
                atomicAdd(&counts[bin_of(r)], 1u);
                // slices rise: the first of equals is the lowest
                if (all_at < 0 || r > all) all = r, all_at = s;
                if (t.capped[s] && (few_at < 0 || r > few)) few = r, few_at = s;
            }
            if (s + 1 == high || t.patient[s + 1] != patient) {
                if (patient >= 0) {
                    give(t, 0, begin, q, all, all_at);
                    give(t, 1, begin, q, few, few_at);
                }
                begin = s + 1, all_at = few_at = -1;
            }
        }
    }
    __syncthreads();
    for (int i = thread; i < BINS; i += threads)
        if (counts[i]) atomicAdd(&t.counts[i], (unsigned long long)counts[i]);
}

extern "C" __global__ void finish_product(
    const int* product, int pieces, long long piece_step, long long row_step, long long n,
    const long long* q_total, const long long* q_squares,
    const long long* s_total, const long long* s_squares,
    int n_queries, int n_slices, int n_patients, int skip,
    const int* own, const int* patient, const unsigned char* capped,
    long long* key, long long* at, unsigned long long* counts, long long* part_key, int* part_at) {
    Tile t = {n_queries, n_slices, n_patients, own, patient + skip, capped + skip,
              key, at, counts, part_key, part_at};
    Raw r = {product, pieces, piece_step, row_step, n, q_total, q_squares, s_total, s_squares};
    tally(r, t);
}

extern "C" __global__ void finish_given(
    const double* values, long long q_step, long long s_step,
    int n_queries, int n_slices, int n_patients, int skip,
    const int* own, const int* patient, const unsigned char* capped,
    long long* key, long long* at, unsigned long long* counts, long long* part_key, int* part_at) {
    Tile t = {n_queries, n_slices, n_patients, own, patient + skip, capped + skip,
              key, at, counts, part_key, part_at};
    Given r = {values, q_step, s_step};
    tally(r, t);
}

// After either: of all slices that have the best r, the lowest.
extern "C" __global__ void lowest(
    int n_queries, int n_slices, int n_patients, int skip, long long start, const int* patient,
    const long long* key, long long* at, const long long* part_key, const int* part_at) {
    patient += skip;
    long long first = start + skip;
    int q = blockIdx.x * blockDim.x + threadIdx.x;
    int low = (blockIdx.y * blockDim.y + threadIdx.y) * STRIP;
    int high = low + STRIP < n_slices ? low + STRIP : n_slices;
    if (q >= n_queries) return;
    for (int s = low; s < high; s++) {
        if (patient[s] < 0 || (s > low && patient[s] == patient[s - 1])) continue;
        for (int kind = 0; kind < 2; kind++) {
            long long part = ((long long)kind * n_slices + s) * n_queries + q;
            long long cell = ((long long)kind * n_patients + patient[s]) * n_queries + q;
            if (part_at[part] >= 0 && part_key[part] == key[cell])
                atomicMin(&at[cell], first + part_at[part]);
        }
    }
}

// Maximum over the poses of each query: one warp for each slice and query.
extern "C" __global__ void highest(
    const int* product, long long row_step, int n_poses, int n_queries, int n_slices,
    int* out, long long out_step) {
    int lane = threadIdx.x % 32;
    long long pair = (long long)blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    bool there = pair < (long long)n_slices * n_queries;
    int s = there ? (int)(pair / n_queries) : 0, q = there ? (int)(pair % n_queries) : 0;
    const int* row = product + s * row_step + (long long)q * n_poses;
    int best = -2147483647 - 1;
#pragma unroll 8
    for (int i = lane; i < n_poses; i += 32) best = row[i] > best ? row[i] : best;
    for (int apart = 16; apart; apart /= 2) {
        int other = __shfl_xor_sync(0xffffffffu, best, apart);
        best = other > best ? other : best;
    }
    if (there && lane == 0) out[q * out_step + s] = best;
}
