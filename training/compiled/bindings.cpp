#include "maps.h"

std::vector<Tensor> norm_prelu_forward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                       double, Tensor, Tensor, double, double);
std::vector<Tensor> norm_prelu_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                        const Tensor&, double, const Tensor&, const Tensor&);
Tensor depthwise_forward(const Tensor&, const Tensor&, int64_t, int64_t);
std::vector<Tensor> depthwise_backward(const Tensor&, const Tensor&, const Tensor&, int64_t,
                                       int64_t);
std::vector<Tensor> esca_forward(const Tensor&, const Tensor&, const Tensor&);
std::vector<Tensor> esca_backward(const Tensor&, const Tensor&, const Tensor&, const Tensor&,
                                  const Tensor&);

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("norm_prelu_forward", &norm_prelu_forward);
  m.def("norm_prelu_backward", &norm_prelu_backward);
  m.def("depthwise_forward", &depthwise_forward);
  m.def("depthwise_backward", &depthwise_backward);
  m.def("esca_forward", &esca_forward);
  m.def("esca_backward", &esca_backward);
}
