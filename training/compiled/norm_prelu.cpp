// Batch normalisation and its activation, PReLU or ReLU6, in one pass each way.
//
// PyTorch runs the two apart, and on a CPU a training step of a MobileFaceNet is bound by the memory
// that they move: seven passes over each map where four would do, and PReLU's own backward fills a
// whole map with slope gradients before it sums it. Here the normalised map is never stored: the
// backward pass computes it again from the convolution's output.
//
// The activation: y where positive, slope y where negative, at most `top`.
#include "maps.h"

namespace {

constexpr int64_t kBlock = 64;  // rows that stay in the first cache while a block of sums is taken

template <typename T>
void add_moments(const T* in, const float* origin, int64_t from, int64_t until, int64_t C, float* acc) {
  for (int64_t c = 0; c < C; c += kLanes) {
    const Lanes about = load(origin + c);
    Lanes sum = load(acc + c), square = load(acc + C + c);
    for (int64_t row = from; row < until; ++row) {
      const Lanes x = load(in + row * C + c) - about;
      sum += x;
      square += x * x;
    }
    store(acc + c, sum);
    store(acc + C + c, square);
  }
}

template <typename T>
void normalise(const T* in, T* out, int64_t from, int64_t until, int64_t C, const float* scale,
               const float* shift, const float* slope, float top) {
  for (int64_t row = from; row < until; ++row)
    for (int64_t c = 0; c < C; c += kLanes) {
      const Lanes y = load(in + row * C + c) * load(scale + c) + load(shift + c);
      const Lanes z = positive(y) + load(slope + c) * negative(y);
      store(out + row * C + c, z < top ? z : z - z + top);
    }
}

// The activation's gradient: what of g, the gradient by its value, reaches y.
inline Lanes behind(Lanes y, Lanes g, Lanes slope, float top) {
  const Lanes d = y > 0 ? g : g * slope;
  return y < top ? d : d - d;
}

// d, the gradient by the normalised, scaled value; summed: d, d (x - mean), and what reaches the slope.
template <typename T>
void add_gradients(const T* in, const T* grad, int64_t from, int64_t until, int64_t C,
                   const float* scale, const float* shift, const float* slope, float top,
                   const float* mean, float* acc) {
  for (int64_t c = 0; c < C; c += kLanes) {
    const Lanes by = load(scale + c), off = load(shift + c), a = load(slope + c), mu = load(mean + c);
    Lanes sum = load(acc + c), by_x = load(acc + C + c), by_slope = load(acc + 2 * C + c);
    for (int64_t row = from; row < until; ++row) {
      const Lanes x = load(in + row * C + c), g = load(grad + row * C + c), y = x * by + off;
      const Lanes d = behind(y, g, a, top);
      sum += d;
      by_x += d * (x - mu);
      by_slope += g * negative(y);
    }
    store(acc + c, sum);
    store(acc + C + c, by_x);
    store(acc + 2 * C + c, by_slope);
  }
}

template <typename T>
void propagate(const T* in, const T* grad, T* out, int64_t from, int64_t until, int64_t C,
               const float* scale, const float* shift, const float* slope, float top,
               const float* of_x, const float* constant) {
  for (int64_t row = from; row < until; ++row)
    for (int64_t c = 0; c < C; c += kLanes) {
      const Lanes by = load(scale + c), g = load(grad + row * C + c), x = load(in + row * C + c);
      const Lanes y = x * by + load(shift + c);
      const Lanes d = behind(y, g, load(slope + c), top);
      store(out + row * C + c, by * d + load(of_x + c) * x + load(constant + c));
    }
}

}  // namespace

// out, and per channel the mean and 1 / sqrt(var + eps) of the batch; the running statistics move on.
std::vector<Tensor> norm_prelu_forward(const Tensor& x, const Tensor& gamma, const Tensor& beta,
                                       const Tensor& slope, double top, Tensor running_mean,
                                       Tensor running_var, double momentum, double eps) {
  const Map map = map_of(x);
  const int64_t rows = map.rows(), C = map.channels;
  Tensor mean = at::empty_like(gamma), invstd = at::empty_like(gamma), out = at::empty_like(x);
  Floats kept(3 * C);
  float *scale = kept.data(), *shift = scale + C, *origin = shift + C;
  by_type(x, [&](auto type) {
    using T = decltype(type);
    const T* in = data<T>(x);
    // Moments about the first row: about zero, a small variance would drown in a large mean.
    for (int64_t c = 0; c < C; c += kLanes) store(origin + c, load(in + c));
    const auto total = sums(rows, 2 * C, kBlock, [&](int64_t from, int64_t until, float* acc) {
      add_moments(in, origin, from, until, C, acc);
    });
    for (int64_t c = 0; c < C; ++c) {
      const double off = total[c] / rows, m = origin[c] + off;
      const double var = std::max(total[C + c] / rows - off * off, 0.0);
      const double inv = 1.0 / std::sqrt(var + eps);
      data<float>(mean)[c] = m;
      data<float>(invstd)[c] = inv;
      scale[c] = data<float>(gamma)[c] * inv;
      shift[c] = data<float>(beta)[c] - m * scale[c];
      float& rm = data<float>(running_mean)[c];
      float& rv = data<float>(running_var)[c];
      rm += momentum * (m - rm);
      rv += momentum * (var * rows / (rows - 1.0) - rv);
    }
    in_threads(rows, [&](int, int64_t from, int64_t until) {
      normalise(in, data<T>(out), from, until, C, scale, shift, data<float>(slope), top);
    });
  });
  return {out, mean, invstd};
}

// The gradients by x, gamma, beta and slope.
std::vector<Tensor> norm_prelu_backward(const Tensor& grad, const Tensor& x, const Tensor& gamma,
                                        const Tensor& beta, const Tensor& slope, double top,
                                        const Tensor& mean, const Tensor& invstd) {
  const Map map = map_of(x);
  map_of(grad);
  const int64_t rows = map.rows(), C = map.channels;
  const float *mu = data<float>(mean), *inv = data<float>(invstd), *a = data<float>(slope);
  Floats kept(4 * C);
  float *scale = kept.data(), *shift = scale + C, *of_x = shift + C, *constant = of_x + C;
  for (int64_t c = 0; c < C; ++c) {
    scale[c] = data<float>(gamma)[c] * inv[c];
    shift[c] = data<float>(beta)[c] - mu[c] * scale[c];
  }
  Tensor by_x = at::empty_like(x), by_gamma = at::empty_like(gamma), by_beta = at::empty_like(beta),
         by_slope = at::empty_like(slope);
  by_type(x, [&](auto type) {
    using T = decltype(type);
    const T *in = data<T>(x), *g = data<T>(grad);
    const auto total = sums(rows, 3 * C, kBlock, [&](int64_t from, int64_t until, float* acc) {
      add_gradients(in, g, from, until, C, scale, shift, a, top, mu, acc);
    });
    for (int64_t c = 0; c < C; ++c) {
      const double d_gamma = total[C + c] * inv[c];
      data<float>(by_beta)[c] = total[c];
      data<float>(by_gamma)[c] = d_gamma;
      data<float>(by_slope)[c] = total[2 * C + c];
      of_x[c] = -scale[c] * inv[c] * d_gamma / rows;
      constant[c] = -scale[c] * total[c] / rows - of_x[c] * mu[c];
    }
    in_threads(rows, [&](int, int64_t from, int64_t until) {
      propagate(in, g, data<T>(by_x), from, until, C, scale, shift, a, top, of_x, constant);
    });
  });
  return {by_x, by_gamma, by_beta, by_slope};
}
