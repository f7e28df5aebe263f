// The 3x3 depth-wise convolution (stride 1 or 2) and its gradients.
//
// Zeros stand around the map: one row and column after it, and `before` it 1 or, with stride 2, none,
// which is TensorFlow's "SAME" of an even map.
//
// For maps with channels last, PyTorch's gradients of it take several times what they move. Here a
// thread takes whole images and slides three rows over each, some channels at a time, widened to
// float32 and with zeros at both ends: they stay in the first cache, and the inner loops are
// multiplications alone.
#include "maps.h"

namespace {

constexpr int64_t kTaps = 9;

// Channels taken at a time: as many as fill a cache line of bfloat16.
int64_t block_of(const Map& map) { return map.channels % (2 * kLanes) ? kLanes : 2 * kLanes; }

// The rows of one image that are in use, `block` channels of them, as float32 (width + 2, block); rows
// outside the image are zeros.
template <typename T>
class Window {
 public:
  explicit Window(const Map& map)
      : map_(map), block_(block_of(map)), row_((map.width + 2) * block_), kept_(4 * row_) {}

  // maps: the first image; channel: the block's first.
  void enter(const T* maps, int64_t image, int64_t channel) {
    from_ = maps + image * map_.height * map_.width * map_.channels + channel;
    for (int64_t& y : held_) y = -1;
  }

  // The position left of the row's first, which is a zero.
  const float* row(int64_t y) {
    if (y < 0 || y >= map_.height) return kept_.data() + 3 * row_;
    float* to = kept_.data() + y % 3 * row_;
    if (held_[y % 3] != y) {
      const T* from = from_ + y * map_.width * map_.channels;
      for (int64_t x = 0; x < map_.width; ++x)
        for (int64_t c = 0; c < block_; c += kLanes)
          store(to + (x + 1) * block_ + c, load(from + x * map_.channels + c));
      held_[y % 3] = y;
    }
    return to;
  }

 private:
  Map map_;
  int64_t block_, row_;
  Floats kept_;
  const T* from_ = nullptr;
  int64_t held_[3];
};

struct Tap {
  const float* source;
  const float* weight;
};

// out[i] = sum over the taps of source[i] * weight, for `count` positions of `block` channels.
template <int N, typename T>
void weigh(const Tap* taps, int64_t step, T* out, int64_t out_step, int64_t count, int64_t block) {
  for (int64_t c = 0; c < block; c += kLanes) {
    Lanes w[N];
    const float* from[N];
    for (int k = 0; k < N; ++k) w[k] = load(taps[k].weight + c), from[k] = taps[k].source + c;
    for (int64_t i = 0; i < count; ++i) {
      Lanes sum = load(from[0] + i * step) * w[0];
      for (int k = 1; k < N; ++k) sum += load(from[k] + i * step) * w[k];
      store(out + i * out_step + c, sum);
    }
  }
}

template <typename T>
void weigh(const std::vector<Tap>& taps, int64_t step, T* out, int64_t out_step, int64_t count,
           int64_t block) {
  switch (taps.size()) {
    case 1: return weigh<1>(taps.data(), step, out, out_step, count, block);
    case 2: return weigh<2>(taps.data(), step, out, out_step, count, block);
    case 4: return weigh<4>(taps.data(), step, out, out_step, count, block);
    default: return weigh<kTaps>(taps.data(), step, out, out_step, count, block);
  }
}

// work(window, image, channel) for every image and block of channels.
template <typename T, typename Work>
void in_windows(const T* maps, const Map& map, Work work) {
  in_threads(map.images, [&](int, int64_t begin, int64_t end) {
    Window<T> window(map);
    for (int64_t b = begin; b < end; ++b)
      for (int64_t c = 0; c < map.channels; c += block_of(map)) {
        window.enter(maps, b, c);
        work(window, b, c);
      }
  });
}

template <typename T>
void convolve(const T* in, const Map& from, const float* weights, int64_t stride, int64_t before, T* out,
              const Map& to) {
  const int64_t C = from.channels, block = block_of(from);
  in_windows(in, from, [&](Window<T>& window, int64_t b, int64_t c) {
    std::vector<Tap> taps(kTaps);
    for (int64_t y = 0; y < to.height; ++y) {
      for (int64_t k = 0; k < kTaps; ++k)
        taps[k] = {window.row(y * stride + k / 3 - before) + (k % 3 + 1 - before) * block,
                   weights + k * C + c};
      T* line = out + (b * to.height + y) * to.width * C + c;
      weigh(taps, stride * block, line, C, to.width, block);
    }
  });
}

// Along one axis the input at `at` was tap k of the output at (at + before - k) / stride, where that
// divides.
template <typename Found>
void readers(int64_t at, int64_t stride, int64_t before, Found found) {
  for (int64_t k = 0; k < 3; ++k)
    if ((at + before - k + stride) % stride == 0) found(k, (at + before - k + stride) / stride - 1);
}

template <typename T>
void propagate(const T* grad, const Map& of, const float* weights, int64_t stride, int64_t before, T* out,
               const Map& to) {
  const int64_t C = of.channels, block = block_of(of);
  in_windows(grad, of, [&](Window<T>& window, int64_t b, int64_t c) {
    std::vector<Tap> taps;
    for (int64_t y = 0; y < to.height; ++y)
      for (int64_t phase = 0; phase < stride; ++phase) {
        taps.clear();
        readers(y, stride, before, [&](int64_t ky, int64_t row) {
          readers(phase, stride, before, [&](int64_t kx, int64_t column) {
            taps.push_back({window.row(row) + (column + 1) * block, weights + (3 * ky + kx) * C + c});
          });
        });
        T* line = out + ((b * to.height + y) * to.width + phase) * C + c;
        weigh(taps, block, line, stride * C, (to.width - phase + stride - 1) / stride, block);
      }
  });
}

// (9, C): the sum over positions of neighbour * gradient.
template <typename T>
std::vector<double> correlate(const T* in, const Map& from, const T* grad, const Map& of, int64_t stride,
                              int64_t before) {
  const int64_t C = from.channels, block = block_of(from);
  return sums(from.images, kTaps * C, 1, [&](int64_t b, int64_t, float* acc) {
    Window<T> window(from);
    for (int64_t c = 0; c < C; c += block) {
      window.enter(in, b, c);
      for (int64_t y = 0; y < of.height; ++y) {
        const float* near[kTaps];
        for (int k = 0; k < kTaps; ++k)
          near[k] = window.row(y * stride + k / 3 - before) + (k % 3 + 1 - before) * block;
        const T* line = grad + (b * of.height + y) * of.width * C + c;
        for (int64_t j = 0; j < block; j += kLanes) {
          Lanes sum[kTaps];
          for (int k = 0; k < kTaps; ++k) sum[k] = load(acc + k * C + c + j);
          for (int64_t x = 0; x < of.width; ++x) {
            const Lanes d = load(line + x * C + j);
            for (int k = 0; k < kTaps; ++k) sum[k] += load(near[k] + x * stride * block + j) * d;
          }
          for (int k = 0; k < kTaps; ++k) store(acc + k * C + c + j, sum[k]);
        }
      }
    }
  });
}

// (C, 1, 3, 3) to (9, C).
Floats taps_first(const Tensor& weight) {
  const int64_t C = weight.size(0);
  const Tensor whole = weight.contiguous();
  Floats out(kTaps * C);
  for (int64_t c = 0; c < C; ++c)
    for (int64_t k = 0; k < kTaps; ++k) out.data()[k * C + c] = data<float>(whole)[c * kTaps + k];
  return out;
}

}  // namespace

Tensor depthwise_forward(const Tensor& x, const Tensor& weight, int64_t stride, int64_t before) {
  TORCH_CHECK(before == 1 || (before == 0 && stride == 2), "padding ", before, " with stride ", stride);
  const Map from = map_of(x);
  const auto side = [&](int64_t of) { return (of + before - 2) / stride + 1; };
  const Map to{from.images, from.channels, side(from.height), side(from.width)};
  Tensor out = at::empty({to.images, to.channels, to.height, to.width},
                         x.options().memory_format(at::MemoryFormat::ChannelsLast));
  Floats weights = taps_first(weight);
  by_type(x, [&](auto type) {
    using T = decltype(type);
    convolve(data<T>(x), from, weights.data(), stride, before, data<T>(out), to);
  });
  return out;
}

// The gradients by x and weight.
std::vector<Tensor> depthwise_backward(const Tensor& grad, const Tensor& x, const Tensor& weight,
                                       int64_t stride, int64_t before) {
  const Map from = map_of(x), to = map_of(grad);
  Tensor by_x = at::empty_like(x), by_weight = at::empty(weight.sizes(), weight.options());
  Floats weights = taps_first(weight);
  by_type(x, [&](auto type) {
    using T = decltype(type);
    propagate(data<T>(grad), to, weights.data(), stride, before, data<T>(by_x), from);
    const auto total = correlate(data<T>(x), from, data<T>(grad), to, stride, before);
    for (int64_t c = 0; c < from.channels; ++c)
      for (int64_t k = 0; k < kTaps; ++k)
        data<float>(by_weight)[c * kTaps + k] = total[k * from.channels + c];
  });
  return {by_x, by_weight};
}
