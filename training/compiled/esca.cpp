// ECACFace's attention (training/networks/ecacface.py: ECA, ESCA) as one pass each way.
//
// As separate steps it costs more than the bottleneck that it stands in: the map is read for the
// channel means, the gate, two poolings, eighteen one-channel convolutions and the product, and once
// more for each gradient. Here a thread takes an image, whose map stays in the second cache.
//
// Letters: P = H x W positions of an image, C channels; maps of nine values a position, one a tap of
// f2's 3x3 kernel, take kLanes floats a position.
#include "maps.h"
#include <cmath>

namespace {

constexpr int kTaps = 9;

// f2's weight (1, 2C, 3, 3): the first C read the mean pool, the others the maximum.
struct Weights {
  Floats mean_CT, max_CT;  // (C, kLanes), nine used: what a position's channels are multiplied with
  Floats mean_TC, max_TC;  // (9, C): the way back

  explicit Weights(const Tensor& f2)
      : mean_CT(kLanes * f2.size(1) / 2), max_CT(kLanes * f2.size(1) / 2),
        mean_TC(kTaps * f2.size(1) / 2), max_TC(kTaps * f2.size(1) / 2) {
    const int64_t C = f2.size(1) / 2;
    const Tensor whole = f2.contiguous();
    for (int64_t c = 0; c < C; ++c)
      for (int t = 0; t < kTaps; ++t) {
        const float of_mean = data<float>(whole)[c * kTaps + t];
        const float of_max = data<float>(whole)[(C + c) * kTaps + t];
        mean_CT.data()[c * kLanes + t] = mean_TC.data()[t * C + c] = of_mean;
        max_CT.data()[c * kLanes + t] = max_TC.data()[t * C + c] = of_max;
      }
  }
};

float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

// out (P, kLanes) = in (P, C) weights (C, kLanes), eight positions at a time.
void multiply(const float* in, const float* weights, int64_t P, int64_t C, float* out) {
  constexpr int kTogether = 8;
  for (int64_t p = 0; p < P; p += kTogether) {
    const float* from[kTogether];
    for (int q = 0; q < kTogether; ++q) from[q] = in + std::min(p + q, P - 1) * C;
    Lanes sum[kTogether] = {};
    for (int64_t c = 0; c < C; ++c) {
      const Lanes w = load(weights + c * kLanes);
      for (int q = 0; q < kTogether; ++q) sum[q] += w * from[q][c];
    }
    for (int q = 0; q < kTogether && p + q < P; ++q) store(out + (p + q) * kLanes, sum[q]);
  }
}

// Calls work(neighbour) for the up to nine positions around (y, x), row by row.
template <typename Work>
void around(int64_t y, int64_t x, const Map& map, Work work) {
  for (int64_t v = std::max<int64_t>(y - 1, 0); v <= std::min(y + 1, map.height - 1); ++v)
    for (int64_t u = std::max<int64_t>(x - 1, 0); u <= std::min(x + 1, map.width - 1); ++u)
      work(v * map.width + u);
}

// The 3x3 maximum of z (P, C), along x and then along y.
void maximum(const float* z, const Map& map, float* along, float* out) {
  const int64_t C = map.channels, W = map.width;
  for (int64_t y = 0; y < map.height; ++y)
    for (int64_t x = 0; x < W; ++x) {
      const float* mid = z + (y * W + x) * C;
      const float *left = x > 0 ? mid - C : mid, *right = x + 1 < W ? mid + C : mid;
      for (int64_t c = 0; c < C; c += kLanes) {
        const Lanes a = load(left + c), b = load(mid + c), d = load(right + c), e = a > b ? a : b;
        store(along + (y * W + x) * C + c, e > d ? e : d);
      }
    }
  for (int64_t y = 0; y < map.height; ++y) {
    const float* mid = along + y * W * C;
    const float *above = y > 0 ? mid - W * C : mid, *below = y + 1 < map.height ? mid + W * C : mid;
    for (int64_t i = 0; i < W * C; i += kLanes) {
      const Lanes a = load(above + i), b = load(mid + i), d = load(below + i), e = a > b ? a : b;
      store(out + y * W * C + i, e > d ? e : d);
    }
  }
}

// The 3x3 mean of maps (P, kLanes); zeros come in from outside and count.
void mean(const float* maps, const Map& map, float* out) {
  for (int64_t y = 0; y < map.height; ++y)
    for (int64_t x = 0; x < map.width; ++x) {
      Lanes sum = {};
      around(y, x, map, [&](int64_t at) { sum += load(maps + at * kLanes); });
      store(out + (y * map.width + x) * kLanes, sum * (1.0f / kTaps));
    }
}

// Calls work(t, neighbour) for f2's taps at (y, x) that lie inside; sign -1: the positions that read it.
template <typename Work>
void taps_at(int64_t y, int64_t x, int sign, const Map& map, Work work) {
  for (int t = 0; t < kTaps; ++t) {
    const int64_t v = y + sign * (t / 3 - 1), u = x + sign * (t % 3 - 1);
    if (v >= 0 && v < map.height && u >= 0 && u < map.width) work(t, v * map.width + u);
  }
}

// One image's attention; its buffers are a thread's, used for image after image.
struct Image {
  Map map;
  int64_t P, C, k;
  Floats pooled, gate, by_mean, z, highest, scratch, taps, means;
  std::vector<float> weight;  // of each position

  Image(const Map& m, int64_t eca_size)
      : map(m), P(m.height * m.width), C(m.channels), k(eca_size), pooled(C), gate(C), by_mean(C),
        z(P * C), highest(P * C), scratch(P * C), taps(P * kLanes), means(P * kLanes), weight(P) {}

  // Channel means, gates, z = gate x, and z's 3x3 maximum.
  template <typename T>
  void begin(const T* x, const float* eca) {
    for (int64_t c = 0; c < C; c += kLanes) {
      Lanes sum = {};
      for (int64_t p = 0; p < P; ++p) sum += load(x + p * C + c);
      store(pooled.data() + c, sum * (1.0f / P));
    }
    for (int64_t c = 0; c < C; ++c) {
      float logit = 0;
      each_tap(c, [&](int64_t j, int64_t from) { logit += eca[j] * pooled.data()[from]; });
      gate.data()[c] = sigmoid(logit);
    }
    for (int64_t c = 0; c < C; c += kLanes)
      for (int64_t p = 0; p < P; ++p)
        store(z.data() + p * C + c, load(x + p * C + c) * load(gate.data() + c));
    maximum(z.data(), map, scratch.data(), highest.data());
  }

  // Calls work(j, channel) for the taps of ECA's 1-D kernel at channel c.
  template <typename Work>
  void each_tap(int64_t c, Work work) const {
    for (int64_t j = 0; j < k; ++j)
      if (const int64_t from = c + j - k / 2; from >= 0 && from < C) work(j, from);
  }

  template <typename T>
  void forward(const T* x, const float* eca, Weights& f2, T* out) {
    begin(x, eca);
    multiply(z.data(), f2.mean_CT.data(), P, C, taps.data());
    mean(taps.data(), map, means.data());
    multiply(highest.data(), f2.max_CT.data(), P, C, taps.data());
    for (int64_t p = 0; p < P; ++p) {
      float logit = 0;
      taps_at(p / map.width, p % map.width, 1, map, [&](int t, int64_t at) {
        logit += taps.data()[at * kLanes + t] + means.data()[at * kLanes + t];
      });
      weight[p] = sigmoid(logit);
      for (int64_t c = 0; c < C; c += kLanes)
        store(out + p * C + c, load(z.data() + p * C + c) * weight[p]);
    }
  }

  // weight: as forward left it. by_f2 (2 x 9, C) and by_eca (k) are added to.
  template <typename T>
  void backward(const T* x, const T* grad, const float* eca, Weights& f2, const float* weights, T* by_x,
                float* by_f2, float* by_eca) {
    begin(x, eca);
    float* by_z = scratch.data();
    spread(grad, weights, by_z);
    share_out(by_z, f2.max_TC.data());
    for (int64_t c = 0; c < C; c += kLanes) {
      add_products(taps.data(), highest.data(), by_f2 + kTaps * C, c);
      add_products(means.data(), z.data(), by_f2, c);
      Lanes w[kTaps], by_gate = {};
      for (int t = 0; t < kTaps; ++t) w[t] = load(f2.mean_TC.data() + t * C + c);
      for (int64_t p = 0; p < P; ++p) {
        Lanes d = load(by_z + p * C + c);
        for (int t = 0; t < kTaps; ++t) d += w[t] * means.data()[p * kLanes + t];
        by_gate += d * load(x + p * C + c);
        store(by_z + p * C + c, d);
      }
      store(by_mean.data() + c, by_gate);
    }
    through_gates(eca, by_eca);
    for (int64_t c = 0; c < C; c += kLanes)
      for (int64_t p = 0; p < P; ++p)
        store(by_x + p * C + c,
              load(by_z + p * C + c) * load(gate.data() + c) + load(by_mean.data() + c));
  }

 private:
  // by_z = grad weight; taps: the gradient by each tap's map; means: the same behind the mean pool.
  template <typename T>
  void spread(const T* grad, const float* weights, float* by_z) {
    for (int64_t p = 0; p < P; ++p) {
      Lanes product = {};
      for (int64_t c = 0; c < C; c += kLanes) {
        const Lanes g = load(grad + p * C + c);
        product += g * load(z.data() + p * C + c);
        store(by_z + p * C + c, g * weights[p]);
      }
      float by_weight = 0;
      for (int i = 0; i < kLanes; ++i) by_weight += product[i];
      weight[p] = by_weight * weights[p] * (1 - weights[p]);
    }
    for (int64_t p = 0; p < P; ++p) {
      Lanes at_taps = {};
      taps_at(p / map.width, p % map.width, -1, map,
              [&](int t, int64_t at) { at_taps[t] = weight[at]; });
      store(taps.data() + p * kLanes, at_taps);
    }
    mean(taps.data(), map, means.data());
  }

  // Each maximum's gradient goes to the first of its nine positions that has the value.
  void share_out(float* by_z, const float* max_TC) {
    for (int64_t c = 0; c < C; c += kLanes) {
      Lanes w[kTaps];
      for (int t = 0; t < kTaps; ++t) w[t] = load(max_TC + t * C + c);
      for (int64_t p = 0; p < P; ++p) {
        Lanes left = {};
        for (int t = 0; t < kTaps; ++t) left += w[t] * taps.data()[p * kLanes + t];
        const Lanes top = load(highest.data() + p * C + c);
        around(p / map.width, p % map.width, map, [&](int64_t at) {
          const Lanes here = load(z.data() + at * C + c), none = {};
          store(by_z + at * C + c, load(by_z + at * C + c) + (here == top ? left : none));
          left = here == top ? none : left;
        });
      }
    }
  }

  // sums (9, C) += maps (P, 9)^T values (P, C), for the channels from c.
  void add_products(const float* maps, const float* values, float* sums, int64_t c) {
    Lanes sum[kTaps];
    for (int t = 0; t < kTaps; ++t) sum[t] = load(sums + t * C + c);
    for (int64_t p = 0; p < P; ++p) {
      const Lanes v = load(values + p * C + c);
      for (int t = 0; t < kTaps; ++t) sum[t] += v * maps[p * kLanes + t];
    }
    for (int t = 0; t < kTaps; ++t) store(sums + t * C + c, sum[t]);
  }

  // From the gradient by the gates to the one by each position's share of the channel mean.
  void through_gates(const float* eca, float* by_eca) {
    float* gradient = by_mean.data();
    Floats by_pooled(C);
    for (int64_t c = 0; c < C; ++c) {
      const float g = gate.data()[c], by_logit = gradient[c] * g * (1 - g);
      each_tap(c, [&](int64_t j, int64_t from) {
        by_eca[j] += by_logit * pooled.data()[from];
        by_pooled.data()[from] += by_logit * eca[j];
      });
    }
    for (int64_t c = 0; c < C; ++c) gradient[c] = by_pooled.data()[c] / P;
  }
};

}  // namespace

// out, and the weight of each position (B, H, W); eca: the 1-D kernel, f2: (1, 2C, 3, 3).
std::vector<Tensor> esca_forward(const Tensor& x, const Tensor& eca, const Tensor& f2) {
  const Map map = map_of(x);
  const int64_t P = map.height * map.width, size = P * map.channels;
  Tensor out = at::empty_like(x), weights = at::empty({map.images, map.height, map.width}, f2.options());
  Weights by_tap(f2);
  by_type(x, [&](auto type) {
    using T = decltype(type);
    in_threads(map.images, [&](int, int64_t from, int64_t until) {
      Image image(map, eca.numel());
      for (int64_t b = from; b < until; ++b) {
        image.forward(data<T>(x) + b * size, data<float>(eca), by_tap, data<T>(out) + b * size);
        std::copy(image.weight.begin(), image.weight.end(), data<float>(weights) + b * P);
      }
    });
  });
  return {out, weights};
}

// The gradients by x, eca and f2.
std::vector<Tensor> esca_backward(const Tensor& grad, const Tensor& x, const Tensor& eca,
                                  const Tensor& f2, const Tensor& weights) {
  const Map map = map_of(x);
  map_of(grad);
  const int64_t C = map.channels, P = map.height * map.width, size = P * C;
  Tensor by_x = at::empty_like(x), by_eca = at::empty_like(eca), by_f2 = at::empty(f2.sizes(), f2.options());
  Weights by_tap(f2);
  by_type(x, [&](auto type) {
    using T = decltype(type);
    std::vector<Image> of_thread(at::get_num_threads(), Image(map, eca.numel()));
    const auto total = sums(map.images, 2 * kTaps * C + kLanes, 1, [&](int64_t b, int64_t, float* acc) {
      of_thread[omp_get_thread_num()].backward(
          data<T>(x) + b * size, data<T>(grad) + b * size, data<float>(eca), by_tap,
          data<float>(weights) + b * P, data<T>(by_x) + b * size, acc, acc + 2 * kTaps * C);
    });
    for (int64_t c = 0; c < 2 * C; ++c)
      for (int t = 0; t < kTaps; ++t)
        data<float>(by_f2)[c * kTaps + t] = total[(c / C * kTaps + t) * C + c % C];
    for (int64_t j = 0; j < eca.numel(); ++j) data<float>(by_eca)[j] = total[2 * kTaps * C + j];
  });
  return {by_x, by_eca, by_f2};
}
