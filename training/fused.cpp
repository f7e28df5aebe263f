// Batch normalisation and PReLU in one pass each way, for float32 maps with channels last in memory.
//
// PyTorch runs the two apart, and on a CPU a training step of a MobileFaceNet is bound by the memory
// that they move: seven passes over each map where four would do, and PReLU's own backward fills a whole
// map with slope gradients before it sums it. Here the normalised map is never stored: the backward pass
// computes it again from the convolution's output.
#include <torch/extension.h>
#include <omp.h>
#include <vector>

using at::Tensor;

namespace {

constexpr int64_t kBlock = 256;  // rows whose sums are kept in float before they go into a double

struct Rows { int64_t count, channels; };

Rows rows_of(const Tensor& x) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.dim() == 4 &&
                  x.is_contiguous(at::MemoryFormat::ChannelsLast),
              "a float32 map (B, C, H, W) with channels last in memory is expected");
  return {x.size(0) * x.size(2) * x.size(3), x.size(1)};
}

// The four inner loops work on rows [from, to) of C floats; written out, since the compiler vectorises
// plain loops over restricted pointers and not what a closure captures.
void add_moments(const float* __restrict in, const float* __restrict origin, int64_t from, int64_t to,
                 int64_t C, float* __restrict sum, float* __restrict square) {
  for (int64_t row = from; row < to; ++row) {
    const float* __restrict r = in + row * C;
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const float x = r[c] - origin[c];
      sum[c] += x;
      square[c] += x * x;
    }
  }
}

void normalise(const float* __restrict in, float* __restrict out, int64_t from, int64_t to, int64_t C,
               const float* __restrict scale, const float* __restrict shift,
               const float* __restrict a) {
  for (int64_t row = from; row < to; ++row) {
    const float* __restrict r = in + row * C;
    float* __restrict o = out + row * C;
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const float y = r[c] * scale[c] + shift[c];
      o[c] = std::max(y, 0.0f) + a[c] * std::min(y, 0.0f);
    }
  }
}

// d, the gradient by the normalised, scaled value; summed: d, d (x - mean), and what reaches the slope.
void add_gradients(const float* __restrict in, const float* __restrict grad, int64_t from, int64_t to,
                   int64_t C, const float* __restrict scale, const float* __restrict shift,
                   const float* __restrict a, const float* __restrict mean, float* __restrict sum,
                   float* __restrict by_x, float* __restrict by_slope) {
  for (int64_t row = from; row < to; ++row) {
    const float* __restrict r = in + row * C;
    const float* __restrict g = grad + row * C;
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const float y = r[c] * scale[c] + shift[c];
      const float d = g[c] * (y > 0 ? 1.0f : a[c]);
      sum[c] += d;
      by_x[c] += d * (r[c] - mean[c]);
      by_slope[c] += g[c] * std::min(y, 0.0f);
    }
  }
}

void propagate(const float* __restrict in, const float* __restrict grad, float* __restrict out,
               int64_t from, int64_t to, int64_t C, const float* __restrict scale,
               const float* __restrict shift, const float* __restrict a,
               const float* __restrict of_x, const float* __restrict constant) {
  for (int64_t row = from; row < to; ++row) {
    const float* __restrict r = in + row * C;
    const float* __restrict g = grad + row * C;
    float* __restrict o = out + row * C;
#pragma omp simd
    for (int64_t c = 0; c < C; ++c) {
      const float y = r[c] * scale[c] + shift[c];
      o[c] = scale[c] * (g[c] * (y > 0 ? 1.0f : a[c])) + of_x[c] * r[c] + constant[c];
    }
  }
}

// Splits the rows among threads, each thread's share into blocks; the same for the same threads.
template <typename Work>
void in_threads(int64_t rows, Work work) {
  const int threads = at::get_num_threads();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; ++t) work(t, rows * t / threads, rows * (t + 1) / threads);
}

// Sums of `width` floats that add(from, to, accumulators) adds to, block by block, as doubles.
template <typename Add>
std::vector<double> sums(int64_t rows, int64_t width, Add add) {
  std::vector<std::vector<double>> partial(at::get_num_threads(), std::vector<double>(width, 0.0));
  in_threads(rows, [&](int t, int64_t begin, int64_t end) {
    std::vector<float> block(width);
    for (int64_t from = begin; from < end; from += kBlock) {
      std::fill(block.begin(), block.end(), 0.0f);
      add(from, std::min(from + kBlock, end), block.data());
      for (int64_t i = 0; i < width; ++i) partial[t][i] += block[i];
    }
  });
  for (size_t t = 1; t < partial.size(); ++t)
    for (int64_t i = 0; i < width; ++i) partial[0][i] += partial[t][i];
  return partial[0];
}

}  // namespace

// out, and per channel the mean and 1 / sqrt(var + eps) of the batch; the running statistics move on.
std::vector<Tensor> forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                            const Tensor& slope, Tensor running_mean, Tensor running_var,
                            double momentum, double eps) {
  const auto [rows, channels] = rows_of(x);
  const int64_t C = channels;
  const float* in = x.data_ptr<float>();
  // Moments about the first row: about zero, a small variance would drown in a large mean.
  const std::vector<float> origin(in, in + C);
  const auto total = sums(rows, 2 * C, [&](int64_t from, int64_t to, float* acc) {
    add_moments(in, origin.data(), from, to, C, acc, acc + C);
  });
  Tensor mean = at::empty({C}, x.options()), invstd = at::empty({C}, x.options());
  std::vector<float> kept(4 * C);
  float *scale = kept.data(), *shift = scale + C;
  const float* a = slope.data_ptr<float>();
  for (int64_t c = 0; c < C; ++c) {
    const double off = total[c] / rows, m = origin[c] + off;
    const double var = std::max(total[C + c] / rows - off * off, 0.0);
    const double inv = 1.0 / std::sqrt(var + eps);
    mean.data_ptr<float>()[c] = m;
    invstd.data_ptr<float>()[c] = inv;
    scale[c] = gamma.data_ptr<float>()[c] * inv;
    shift[c] = beta.data_ptr<float>()[c] - m * scale[c];
    float& rm = running_mean.data_ptr<float>()[c];
    float& rv = running_var.data_ptr<float>()[c];
    rm += momentum * (m - rm);
    rv += momentum * (var * rows / (rows - 1.0) - rv);
  }
  Tensor out = at::empty_like(x);
  float* to = out.data_ptr<float>();
  in_threads(rows, [&](int, int64_t from, int64_t until) {
    normalise(in, to, from, until, C, scale, shift, a);
  });
  return {out, mean, invstd};
}

// The gradients by x, gamma, beta and slope.
std::vector<Tensor> backward(const Tensor& grad, const Tensor& x, const Tensor& gamma,
                             const Tensor& beta, const Tensor& slope, const Tensor& mean,
                             const Tensor& invstd) {
  const auto [rows, channels] = rows_of(x);
  const int64_t C = channels;
  rows_of(grad);
  const float *in = x.data_ptr<float>(), *g = grad.data_ptr<float>();
  const float *mu = mean.data_ptr<float>(), *inv = invstd.data_ptr<float>();
  std::vector<float> kept(4 * C);
  float *scale = kept.data(), *shift = scale + C;
  const float* a = slope.data_ptr<float>();
  for (int64_t c = 0; c < C; ++c) {
    scale[c] = gamma.data_ptr<float>()[c] * inv[c];
    shift[c] = beta.data_ptr<float>()[c] - mu[c] * scale[c];
  }
  const auto total = sums(rows, 3 * C, [&](int64_t from, int64_t to, float* acc) {
    add_gradients(in, g, from, to, C, scale, shift, a, mu, acc, acc + C, acc + 2 * C);
  });
  Tensor by_gamma = at::empty_like(gamma), by_beta = at::empty_like(beta),
         by_slope = at::empty_like(slope);
  float *of_x = shift + C, *constant = of_x + C;
  for (int64_t c = 0; c < C; ++c) {
    const double d_gamma = total[C + c] * inv[c];
    by_beta.data_ptr<float>()[c] = total[c];
    by_gamma.data_ptr<float>()[c] = d_gamma;
    by_slope.data_ptr<float>()[c] = total[2 * C + c];
    of_x[c] = -scale[c] * inv[c] * d_gamma / rows;
    constant[c] = -scale[c] * total[c] / rows - of_x[c] * mu[c];
  }
  Tensor by_x = at::empty_like(x);
  float* to = by_x.data_ptr<float>();
  in_threads(rows, [&](int, int64_t from, int64_t until) {
    propagate(in, g, to, from, until, C, scale, shift, a, of_x, constant);
  });
  return {by_x, by_gamma, by_beta, by_slope};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", &forward);
  m.def("backward", &backward);
}
