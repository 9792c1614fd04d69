// c = a b in row-major float32, plainly written: what NVIDIA's compiler makes of the tiling that einjit's large float32
// tile has. A block computes 128 x 128, a thread 8 x 8 of them in halves; 8 steps of the sum lie in shared memory,
// twice: one block is computed with while the next one is on its way. Sizes are multiples of the tile's.

constexpr int TILE = 128, STEPS = 8, HALF = 64, ROW = TILE + 4;

__device__ inline float part(const float4 &v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

extern "C" __global__ void __launch_bounds__(256, 2)
sgemm(const float *__restrict__ a, const float *__restrict__ b, float *__restrict__ c, int n, int k)
{
    __shared__ __align__(16) float rows[2][STEPS][ROW], columns[2][STEPS][ROW];
    const int thread = threadIdx.x, down = thread / 16 * 4, across = thread % 16 * 4;

    // Two threads read 8 neighbours of a row of a, and 32 threads 128 neighbours of a row of b.
    const int a_row = thread / 2, a_step = thread % 2 * 4, b_step = thread / 32, b_column = thread % 32 * 4;
    const float *a_at = a + (size_t)(blockIdx.y * TILE + a_row) * k + a_step;
    const float *b_at = b + (size_t)b_step * n + blockIdx.x * TILE + b_column;

    float4 a_next = *(const float4 *)a_at, b_next = *(const float4 *)b_at;
    for (int i = 0; i < 4; i++) rows[0][a_step + i][a_row] = part(a_next, i);
    *(float4 *)&columns[0][b_step][b_column] = b_next;
    __syncthreads();

    float total[8][8] = {};
    int now = 0;
    for (int left = k; left > 0; left -= STEPS) {
        const bool more = left > STEPS;
        if (more) {
            a_at += STEPS;
            b_at += (size_t)STEPS * n;
            a_next = *(const float4 *)a_at;
            b_next = *(const float4 *)b_at;
        }
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            float4 x[2], y[2];
            for (int h = 0; h < 2; h++) {
                x[h] = *(const float4 *)&rows[now][step][down + h * HALF];
                y[h] = *(const float4 *)&columns[now][step][across + h * HALF];
            }
#pragma unroll
            for (int i = 0; i < 8; i++)
#pragma unroll
                for (int j = 0; j < 8; j++) total[i][j] += part(x[i / 4], i % 4) * part(y[j / 4], j % 4);
        }
        if (more) {
            now ^= 1;
            for (int i = 0; i < 4; i++) rows[now][a_step + i][a_row] = part(a_next, i);
            *(float4 *)&columns[now][b_step][b_column] = b_next;
            __syncthreads();
        }
    }

    for (int i = 0; i < 8; i++) {
        float *to = c + (size_t)(blockIdx.y * TILE + down + i % 4 + i / 4 * HALF) * n + blockIdx.x * TILE + across;
        for (int h = 0; h < 2; h++)
            *(float4 *)(to + h * HALF) =
                make_float4(total[i][4 * h], total[i][4 * h + 1], total[i][4 * h + 2], total[i][4 * h + 3]);
    }
}
