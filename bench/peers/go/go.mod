module github.com/docpreview/docpreview-gateway/bench/peers/go

go 1.24.0

require (
	github.com/docpreview/docpreview-gateway/clients/go v0.0.0
	github.com/hashicorp/golang-lru/v2 v2.0.7
	github.com/tencentyun/cos-go-sdk-v5 v0.7.70
	google.golang.org/grpc v1.80.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/clbanning/mxj v1.8.4 // indirect
	github.com/google/go-querystring v1.0.0 // indirect
	github.com/mitchellh/mapstructure v1.4.3 // indirect
	github.com/mozillazg/go-httpheader v0.2.1 // indirect
	golang.org/x/net v0.49.0 // indirect
	golang.org/x/sys v0.40.0 // indirect
	golang.org/x/text v0.33.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260120221211-b8f7ae30c516 // indirect
)

replace github.com/docpreview/docpreview-gateway/clients/go => ../../../clients/go
