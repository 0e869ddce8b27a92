package dockerfile

import (
	"context"
	"encoding/json"

	"github.com/moby/buildkit/frontend/dockerfile/dockerfile2llb"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/solver/pb"
)

// convert runs BuildKit's Dockerfile frontend against the recorder, as its own
// builder.Build does. It gives the definition of the image's last layer (nil
// when it has none) and the image configuration.
func (c *recorder) convert(ctx context.Context) (*pb.Definition, string, error) {
	bc, err := dockerui.NewClient(c)
	if err != nil {
		return nil, "", err
	}
	src, err := bc.ReadEntrypoint(ctx, "Dockerfile")
	if err != nil {
		return nil, "", err
	}
	opt := dockerfile2llb.ConvertOpt{Config: bc.Config, Client: bc, SourceMap: src.SourceMap, MetaResolver: c}
	if len(bc.TargetPlatforms) > 0 {
		opt.TargetPlatform = &bc.TargetPlatforms[0]
	}
	res, err := dockerfile2llb.Dockerfile2LLB(ctx, src.Data, opt)
	if err != nil {
		return nil, "", err
	}
	def, err := res.State.Marshal(ctx)
	if err != nil {
		return nil, "", err
	}
	config, err := json.Marshal(res.Image)
	if err != nil {
		return nil, "", err
	}
	return def.ToPB(), string(config), nil
}
