module weir.example/api-key

go 1.24
